"""Removing what has been finished for long, a page at a time: effects with their tries, and commands.

Whatever a later decision asks for stays: the record and its history, what is owed or failed, and of each target the
effects that say which others are overtaken. Nobody is waited for, and nobody waits longer than for one page.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Generic, TypeVar

from sqlalchemy import ColumnElement, Connection, and_, delete, exists, func, or_, select
from sqlalchemy.orm import aliased

from db.models import Effect, EffectState, HandledCommand, InboxEntry, Try

PAGE_ROWS = 1_000
LOCK_TIMEOUT = "1s"

Place = TypeVar("Place", int, datetime)


@dataclass(frozen=True, slots=True)
class Removed:
    """How many rows were removed."""

    effects: int = 0
    tries: int = 0
    commands: int = 0

    def __add__(self, other: "Removed") -> "Removed":
        return Removed(self.effects + other.effects, self.tries + other.tries, self.commands + other.commands)


@dataclass(frozen=True, slots=True)
class Page(Generic[Place]):
    """What became of one page, and where the next one begins; None when this was the last."""

    removed: Removed
    end: Place | None


def remove_effects(connection: Connection, before: datetime, after: int | None) -> Page[int]:
    """Remove a page's effects that ended before a moment, with their tries.

    Walks all effects in the order in which they came to be owed, so that what stays is looked at once only.

    Parameters:
        before: the moment.
        after: where the page before this one ended; None for the first.
    """
    _wait_for_nobody(connection)
    page = connection.execute(
        select(Effect.id, Effect.sequence, Effect.created_at)
        .where(Effect.sequence > (after or 0))
        .order_by(Effect.sequence)
        .limit(PAGE_ROWS)
    ).all()
    old = [row.id for row in page if row.created_at < before]
    if not old:
        return Page(Removed(), None)
    chosen = connection.scalars(
        select(Effect.id).where(Effect.id.in_(old), _removable(before)).with_for_update(skip_locked=True)
    ).all()
    tries = connection.execute(delete(Try).where(Try.effect_id.in_(chosen)))
    effects = connection.execute(delete(Effect).where(Effect.id.in_(chosen)))
    return Page(Removed(effects=effects.rowcount, tries=tries.rowcount), page[-1].sequence)


def _removable(before: datetime) -> ColumnElement[bool]:
    # Done and superseded are the end, while a person may yet cancel a newer effect that failed, or retry one that
    # was cancelled. So an effect on a target goes only if one that is at its end overtakes it, and the newest of
    # those stays: for every effect that stays, it answers as all of them did.
    newer = aliased(Effect)
    overtaken_for_good = exists().where(
        newer.target == Effect.target,
        newer.sequence > Effect.sequence,
        newer.state.in_((EffectState.DONE, EffectState.SUPERSEDED)),
    )
    return and_(
        Effect.state.in_((EffectState.DONE, EffectState.SUPERSEDED, EffectState.CANCELLED)),
        func.coalesce(Effect.done_at, Effect.dropped_at, Effect.created_at) < before,
        or_(Effect.target.is_(None), overtaken_for_good),
    )


def remove_commands(connection: Connection, before: datetime, after: datetime | None) -> Page[datetime]:
    """Remove a page of commands that were handled before a moment, with their outcomes.

    A command that is removed and comes again is a new one.

    Parameters:
        before: the moment.
        after: where the page before this one ended; None for the first.
    """
    _wait_for_nobody(connection)
    # From where the last page ended, not from the start: as long as somebody may still see them, the index keeps
    # the rows that were removed.
    oldest = (
        select(HandledCommand.inbox_id, HandledCommand.handled_at)
        .where(HandledCommand.handled_at < before)
        .order_by(HandledCommand.handled_at)
        .limit(PAGE_ROWS)
        .with_for_update(skip_locked=True)
    )
    page = connection.execute(oldest.where(HandledCommand.handled_at >= after) if after else oldest).all()
    if not page:
        return Page(Removed(), None)
    removed = connection.execute(delete(InboxEntry).where(InboxEntry.id.in_([row.inbox_id for row in page])))
    return Page(Removed(commands=removed.rowcount), page[-1].handled_at)


def _wait_for_nobody(connection: Connection) -> None:
    connection.execute(select(func.set_config("lock_timeout", LOCK_TIMEOUT, True)))
