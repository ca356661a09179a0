"""Acts in bulk: how far one has come, what became of its effects, and having it stop."""

from http import HTTPStatus
from uuid import UUID

from sqlalchemy import Connection
from starlette.exceptions import HTTPException
from starlette.responses import RedirectResponse, Response

from db import acts, bulk
from db.bulk import BulkState, Progress
from db.states import EffectState
from invigilator.acts import effects
from invigilator.acts.actor import Action
from invigilator.acts.transactions import acting
from invigilator.web.console import filters
from invigilator.web.console.pages.acting import PAST, is_or_are, selected
from invigilator.web.console.pages.effects import label_of, uuid_of
from invigilator.web.console.pages.messages import number_of
from invigilator.web.console.rendering import address
from invigilator.web.console.site import Site, Visit
from invigilator.web.reading import reading

LOOKED_AT = 10_000
"""So many effects of an act are counted by what became of them."""
LAST_STEPS = 3
"""The row that closes an act, the one of who has stopped it, and a step that was under way then."""
_RUNNING = (BulkState.RUNNING, BulkState.STOPPING)
_OWED = (EffectState.PENDING, EffectState.RUNNING)


def progress(site: Site, visit: Visit) -> Response:
    """How far an act in bulk has come, and at its end what became of its effects."""
    with reading(site.engine) as connection:
        act = _act(connection, uuid_of(visit, "id"))
        is_running = act.state in _RUNNING
        became = {} if is_running else acts.states_of(connection, act.id, LOOKED_AT)
        newest = list(acts.acts(connection, act_id=act.id, limit=LAST_STEPS))
    looked_at = min(act.done, LOOKED_AT)
    return site.page(
        visit,
        "bulk.html",
        act=act,
        is_running=is_running,
        are=is_or_are(act.done),
        past=PAST[Action(act.action)],
        step=next((one for one in newest if one["action"] == act.action), None),
        stopped_by=next((one["actor"] for one in newest if one["action"] == Action.STOP), None),
        became=became,
        is_owed=any(state in became for state in _OWED),
        looked_at=looked_at,
        gone=looked_at - sum(became.values()),
        place=_place(act),
    )


def _place(act: Progress) -> str:
    """Return the address of what fits the filter of an act now."""
    if (messages := act.filter.get("messages")) is not None:
        return address("quarantine", code=messages.get("code"), source=messages.get("source"))
    return address("effects", **filters.parameters(act.filter))


def changed(site: Site, visit: Visit) -> Response:
    """The effects that a step of an act has changed, with what they are now."""
    act_id = uuid_of(visit, "id")
    with reading(site.engine) as connection:
        steps = acts.steps_of(connection, act_id) if act_id else {}
        step = number_of(visit, "step") or next(iter(steps), 0)
        if act_id is None or step not in steps:
            raise HTTPException(
                HTTPStatus.NOT_FOUND, "There is no such step of an act, or it has changed no effect."
            )
        found = acts.effects_of(connection, act_id, step)
    order = list(steps)
    place = order.index(step)
    return site.page(
        visit,
        "act.html",
        act_id=act_id,
        action=steps[step],
        place=place + 1,
        steps=len(steps),
        next_step=next(iter(order[place + 1 :]), None),
        effects=[{**one, "label": label_of(one) if one["kind"] else None} for one in found],
    )


def stop(site: Site, visit: Visit) -> Response:
    """Have an act in bulk end before its next step."""
    ids = selected(visit.form.getlist("id"))
    with acting(site.engine) as connection:
        act = _act(connection, ids[0] if ids else None)
        effects.stop(connection, visit.person.actor(), act.id)
    return RedirectResponse(address("bulk", id=act.id), HTTPStatus.SEE_OTHER)


def _act(connection: Connection, act_id: UUID | None) -> Progress:
    found = bulk.read(connection, act_id) if act_id else None
    if found is None:
        raise HTTPException(HTTPStatus.NOT_FOUND, "There is no such act in bulk.")
    return found
