"""Effects: the list with its filters, and one with its tries."""

from http import HTTPStatus
from typing import Any
from uuid import UUID

from sqlalchemy import Connection
from starlette.exceptions import HTTPException
from starlette.responses import Response

from db import effect_filters, lookups
from db.effect_filters import Filter
from invigilator.acts.effects import CHANGES, Change, check, sent_with
from invigilator.web.console import filters
from invigilator.web.console.site import PAGE, Site, Visit
from invigilator.web.reading import reading
from worker.kind_entry import UnreadablePayloadError
from worker.kinds import EffectKind

COUNTED = 1_000
"""So many effects that match are counted. Of more it says that there are more."""


def listed(site: Site, visit: Visit) -> Response:
    """The effects that fit the filter of the address, newest first."""
    visit.only(*filters.NAMES, "after")
    wanted = filters.read(visit.query)
    after = uuid_of(visit, "after")
    with reading(site.engine) as connection:
        check(connection, wanted)
        try:
            page = effect_filters.page(connection, wanted, after=after, limit=PAGE)
        except effect_filters.UnknownEffectError as error:
            raise HTTPException(HTTPStatus.NOT_FOUND, str(error)) from None
        matching = _matching(connection, wanted)
    return site.page(
        visit,
        "effects.html",
        effects=[{**one, "label": label_of(one)} for one in page.effects],
        next=page.next,
        matching=matching,
        counted=COUNTED,
        wanted=wanted,
        query=filters.written(wanted),
        kinds=filters.KINDS,
        states=filters.STATES,
        bulk=[action.value for action, change in CHANGES.items() if _fits(wanted, change)],
    )


def _matching(connection: Connection, wanted: Filter) -> int | None:
    # No index finds a part of a text, so looking for it may go through all that fails.
    if wanted.is_empty or wanted.error is not None:
        return None
    return effect_filters.count_up_to(connection, wanted, COUNTED)


def _fits(wanted: Filter, change: Change) -> bool:
    """Return whether an action can be done to all that match."""
    return not wanted.is_empty and set(wanted.states) <= set(change.states)


def shown(site: Site, visit: Visit) -> Response:
    """One effect, with its payload and its tries."""
    effect_id = uuid_of(visit, "id")
    with reading(site.engine) as connection:
        found = lookups.effect(connection, effect_id) if effect_id else None
    if found is None:
        raise HTTPException(HTTPStatus.NOT_FOUND, "There is no such effect. It may have been pruned.")
    return site.page(
        visit, "effect.html", effect={**found, "label": label_of(found)}, sent_with=sent_with(found)
    )


def uuid_of(visit: Visit, name: str) -> UUID | None:
    """Return an id of the address. None when there is none.

    Raises:
        HTTPException: it is no UUID.
    """
    text = visit.asked(name)
    try:
        return UUID(text) if text else None
    except ValueError:
        raise HTTPException(HTTPStatus.BAD_REQUEST, f"{name}: is no id of an effect or an attempt.") from None


def label_of(effect: dict[str, Any]) -> str:
    """Return what an effect is about. Its kind when this release does not know it."""
    try:
        entry = EffectKind(effect["kind"]).entry
        return entry.subject(entry.read(effect["payload"]))
    except (ValueError, UnreadablePayloadError):
        return str(effect["kind"])
