"""Retrying and cancelling effects: one, those that were selected, or all that match."""

import json
from collections.abc import Sequence
from http import HTTPStatus

from starlette.exceptions import HTTPException
from starlette.responses import Response

from db.effect_filters import Filter
from invigilator.acts import effects
from invigilator.acts.actor import Action
from invigilator.web.console import filters
from invigilator.web.console.pages.acting import (
    PAST,
    ask,
    counted,
    done,
    is_or_are,
    reason_of,
    running,
    selected,
)
from invigilator.web.console.rendering import address
from invigilator.web.console.site import Site, Visit
from invigilator.web.reading import reading

_CONSEQUENCES = {
    Action.RETRY: "They are due at once. Their delays, and the time for which they are tried, begin anew.",
    Action.CANCEL: "They will not be done. The other side is not told. A cancelled effect can be retried.",
}
SHOWN_GROUPS = 20
"""Kinds and causes that the question names, the most frequent ones."""


def ask_for(site: Site, visit: Visit, action: Action) -> Response:
    """Say how many effects an action would change, and ask for the reason."""
    visit.only(*filters.NAMES, "id", "selected")
    chosen = selected(visit.query.getlist("id"))
    if chosen:
        hidden: list[tuple[str, object]] = [("id", one) for one in chosen]
        with reading(site.engine) as connection:
            found = effects.preview_of(connection, action, chosen)
        return _ask(site, visit, action, found, len(chosen), "selected", hidden)
    if "selected" in visit.query:
        raise HTTPException(HTTPStatus.BAD_REQUEST, "Nothing was selected. Go back, and tick some effects.")
    wanted = effects.meant(action, filters.read(visit.query))
    with reading(site.engine) as connection:
        found = effects.preview(connection, action, wanted)
    hidden = [("filter", json.dumps(wanted.as_json())), ("expected", found.number)]
    return _ask(site, visit, action, found, found.number, "that match", hidden, wanted)


def _ask(
    site: Site,
    visit: Visit,
    action: Action,
    found: effects.Preview,
    number: int,
    which: str,
    hidden: list[tuple[str, object]],
    wanted: Filter | None = None,
) -> Response:
    what = counted(number, "effect")
    return ask(
        site,
        visit,
        title=f"{action.capitalize()} {what}",
        question=f"{action.capitalize()} {what} {which}? {_CONSEQUENCES[action]}",
        hidden=hidden,
        button=f"{action.capitalize()} {what}" if number else None,
        which=None if wanted is None else wanted.as_json(),
        back=address("effects", **filters.written(wanted)) if wanted else _place(hidden),
        groups=found.groups[:SHOWN_GROUPS],
        warning=found.warning,
    )


def _place(chosen: Sequence[tuple[str, object]]) -> str:
    """Return the address of the page to go on with, after an act on effects that were selected."""
    return address("effect", id=chosen[0][1]) if len(chosen) == 1 else address("effects")


def do(site: Site, visit: Visit, action: Action) -> Response:
    """Do it: at once to those that were selected, in steps to all that match."""
    reason, actor = reason_of(visit), visit.person.actor()
    if document := visit.sent("filter"):
        wanted, most = _filter(document), _number(visit.sent("expected"))
        # No more than the person was told of.
        return running(site, effects.start(site.engine, actor, action, wanted, reason, most=most))
    chosen = selected(visit.form.getlist("id"))
    if not chosen:
        raise HTTPException(HTTPStatus.BAD_REQUEST, "Nothing was selected.")
    ended = effects.change(site.engine, actor, action, chosen, reason)
    number = ended.number
    return done(
        site,
        visit,
        title=f"{action.capitalize()}: done",
        sentence=f"{counted(number, 'effect')} of {len(set(chosen))} {is_or_are(number)} {PAST[action]}.",
        refused={f"{key}": why for key, why in ended.refused.items()},
        back=_place([("id", one) for one in chosen]),
    )


def _filter(document: str) -> Filter:
    try:
        return Filter.from_json(json.loads(document))
    except (ValueError, TypeError, AttributeError, RecursionError):
        raise HTTPException(HTTPStatus.BAD_REQUEST, "filter: is none of ours.") from None


def _number(text: str) -> int:
    if not (text.isascii() and text.isdecimal()):
        raise HTTPException(HTTPStatus.BAD_REQUEST, "expected: is no number.")
    return int(text[:18])
