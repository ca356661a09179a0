"""What the pages that do something have in common: they ask with the count, and then do it with a reason."""

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any
from uuid import UUID

from starlette.exceptions import HTTPException
from starlette.responses import RedirectResponse, Response

from db.effect_preview import Group
from invigilator.acts.actor import Action
from invigilator.web.console.rendering import address
from invigilator.web.console.running import Act
from invigilator.web.console.site import Site, Visit

MAX_REASON = 2_000
MAX_SELECTED = 1_000
PAST = {
    Action.RETRY: "to be tried again",
    Action.CANCEL: "cancelled",
    Action.REPLAY: "replayed",
    Action.DISCARD: "discarded",
}
"""What something is to which an action was done."""


def ask(
    site: Site,
    visit: Visit,
    *,
    title: str,
    question: str,
    hidden: Sequence[tuple[str, object]],
    button: str | None,
    fields: Sequence[dict[str, Any]] = (),
    back: str,
    which: Mapping[str, Any] | None = None,
    groups: Sequence[Group] = (),
    warning: str | None = None,
) -> Response:
    """Return the page that asks before something is done.

    Parameters:
        question: says what, and to how many.
        hidden: fields that the form sends.
        button: what it says. None where there is nothing to do.
        fields: what is to be filled in besides the reason.
        back: the address of the page from which it leads away.
        which: the filter of those to which it will be done.
        groups: how many effects of which kind and cause it is about.
        warning: what speaks against it.
    """
    return site.page(
        visit,
        "ask.html",
        title=title,
        question=question,
        hidden=hidden,
        button=button,
        fields=fields,
        back=back,
        which=which,
        groups=groups,
        warning=warning,
    )


def done(
    site: Site, visit: Visit, *, title: str, sentence: str, refused: dict[Any, str], back: str
) -> Response:
    """Return the page that says what was done.

    Parameters:
        refused: why not, for each of those that were left as they are.
        back: the address of the page to go on with.
    """
    return site.page(visit, "done.html", title=title, sentence=sentence, refused=refused, back=back)


def running(site: Site, act: Act, *afterwards: Any) -> Response:
    """Run an act in bulk, and send the browser to its progress."""
    site.runner.submit(act, *afterwards)
    return RedirectResponse(address("bulk", id=act.progress.id), HTTPStatus.SEE_OTHER)


def reason_of(visit: Visit) -> str:
    """Return the reason of a form.

    Raises:
        HTTPException: there is none, or it is too long.
    """
    reason = visit.sent("reason")
    if not reason or len(reason) > MAX_REASON:
        raise HTTPException(
            HTTPStatus.BAD_REQUEST, f"Go back, and say why, in at most {MAX_REASON} characters."
        )
    return reason


def selected(values: Sequence[object]) -> list[UUID]:
    """Return the effects that were selected.

    Raises:
        HTTPException: one of them is no id, or there are too many.
    """
    if len(values) > MAX_SELECTED:
        raise HTTPException(HTTPStatus.BAD_REQUEST, "Too many were selected. Take all that match instead.")
    try:
        return [UUID(str(one)) for one in values]
    except ValueError:
        raise HTTPException(HTTPStatus.BAD_REQUEST, "id: is no id of an effect.") from None


def counted(number: int, what: str) -> str:
    """Return a number of things.

    Example:
        >>> counted(1, "effect"), counted(4000, "effect")
        ('1 effect', '4,000 effects')
    """
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def is_or_are(number: int) -> str:
    """Return the verb for a number of things."""
    return "is" if number == 1 else "are"
