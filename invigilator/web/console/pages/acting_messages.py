"""Replaying and discarding messages in quarantine: one, those that were selected, or all that match."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from http import HTTPStatus

from starlette.exceptions import HTTPException
from starlette.responses import Response

from db import quarantine_filters
from db.quarantine_filters import Fitting
from invigilator.acts import messages
from invigilator.acts import quarantine as acts
from invigilator.acts.actor import Action
from invigilator.acts.transactions import acting
from invigilator.web.console.pages.acting import (
    MAX_SELECTED,
    PAST,
    ask,
    counted,
    done,
    is_or_are,
    reason_of,
    running,
)
from invigilator.web.console.pages.messages import fitting, number_from
from invigilator.web.console.rendering import address
from invigilator.web.console.site import Site, Visit
from invigilator.web.reading import reading

_CONSEQUENCES = {
    Action.REPLAY: "They are published again, unchanged. What is still no valid command comes back.",
    Action.DISCARD: "They are deleted, and cannot be restored.",
}


def ask_for(site: Site, visit: Visit, action: Action) -> Response:
    """Say how many messages an action would take, and ask for the reason."""
    visit.only("code", "source", "id", "all")
    chosen = _selected(visit.query.getlist("id"))
    hidden: list[tuple[str, object]] = [("id", one) for one in chosen]
    number = len(chosen)
    if not chosen:
        if "all" not in visit.query:
            raise HTTPException(
                HTTPStatus.BAD_REQUEST, "Nothing was selected. Go back, and tick some messages."
            )
        wanted = fitting(visit.asked("code"), visit.asked("source"))
        with reading(site.engine) as connection:
            number, last = quarantine_filters.count(connection, wanted)
        # Those that come while the person thinks are not meant.
        hidden = [("all", last), *wanted.as_json().items()]
    what = counted(number, "message")
    return ask(
        site,
        visit,
        title=f"{action.capitalize()} {what}",
        question=f"{action.capitalize()} {what}? {_CONSEQUENCES[action]}",
        hidden=hidden,
        button=f"{action.capitalize()} {what}" if number else None,
        back=address("quarantine"),
    )


def do(site: Site, visit: Visit, action: Action) -> Response:
    """Do it: at once to those that were selected, in steps to all that match."""
    reason = reason_of(visit)
    if last := visit.sent("all"):
        wanted = fitting(visit.sent("code") or None, visit.sent("source") or None)
        return _all(site, visit, action, replace(wanted, last=number_from("all", last)), reason)
    chosen = _selected(visit.form.getlist("id"))
    if not chosen:
        raise HTTPException(HTTPStatus.BAD_REQUEST, "Nothing was selected.")
    refused = (_replay if action is Action.REPLAY else _discard)(site, visit, chosen, reason)
    number = len(chosen) - len(refused)
    return done(
        site,
        visit,
        title=f"{action.capitalize()}: done",
        sentence=f"{counted(number, 'message')} of {len(chosen)} {is_or_are(number)} {PAST[action]}.",
        refused={str(one): why for one, why in refused.items()},
        back=address("quarantine"),
    )


def _all(site: Site, visit: Visit, action: Action, wanted: Fitting, reason: str) -> Response:
    actor = visit.person.actor()
    if action is Action.DISCARD:
        return running(site, messages.discard_all(site.engine, actor, wanted, reason))
    with ExitStack() as opened:
        publisher = opened.enter_context(site.publisher())
        act = messages.replay_all(site.engine, actor, publisher, wanted, reason)
        return running(site, act, opened.pop_all().close)


def _replay(site: Site, visit: Visit, chosen: list[int], reason: str) -> dict[int, str]:
    with site.publisher() as publisher:
        return acts.replay(site.engine, visit.person.actor(), publisher, chosen, reason)


def _discard(site: Site, visit: Visit, chosen: list[int], reason: str) -> dict[int, str]:
    with acting(site.engine) as connection:
        gone = acts.discard(connection, visit.person.actor(), chosen, reason)
    return {one: acts.NO_SUCH_MESSAGE for one in chosen if one not in gone}


def _selected(values: Sequence[object]) -> list[int]:
    if len(values) > MAX_SELECTED:
        raise HTTPException(HTTPStatus.BAD_REQUEST, "Too many were selected. Take all instead.")
    return [number_from("id", str(one)) for one in dict.fromkeys(values)]
