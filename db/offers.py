"""Offering effects to workers: which are due, and until when an offer stands."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    Connection,
    Interval,
    ScalarSelect,
    Select,
    and_,
    bindparam,
    func,
    literal,
    or_,
    select,
    union_all,
    update,
)
from sqlalchemy.orm import InstrumentedAttribute
from sqlalchemy.sql.dml import ReturningUpdate

from db.clock import CLOCK, NOW
from db.connect import limit_idleness
from db.models import Effect, EffectState


@dataclass(frozen=True, slots=True)
class Offer:
    """An effect that a worker should look at."""

    id: UUID
    kind: str
    payload: dict[str, Any]
    tries: int


@dataclass(frozen=True, slots=True)
class Due:
    """The kinds of which there is an effect to offer."""

    due: Sequence[str]
    lost: Sequence[str]
    """By their workers: the lease has ended."""

    @property
    def kinds(self) -> list[str]:
        """Of both."""
        return sorted({*self.due, *self.lost})


@dataclass(frozen=True, slots=True, eq=False)  # == of columns makes SQL
class _Reason:
    """Why an effect is to be offered."""

    condition: ColumnElement[bool]
    age: InstrumentedAttribute[Any]
    """Since when; the oldest first."""


_DUE = _Reason(and_(Effect.state == EffectState.PENDING, Effect.due_at <= NOW), Effect.due_at)
_LOST = _Reason(and_(Effect.state == EffectState.RUNNING, Effect.lease_until < NOW), Effect.lease_until)


def find_due(connection: Connection, kinds: Sequence[str]) -> Due:
    """See of which kinds an effect is due, or was lost by its worker, and is not offered."""
    found = connection.execute(_due_statement(tuple(kinds))).one()
    due, lost = found[: len(kinds)], found[len(kinds) :]
    return Due(
        [kind for kind, is_there in zip(kinds, due, strict=True) if is_there],
        [kind for kind, is_there in zip(kinds, lost, strict=True) if is_there],
    )


@cache  # SQLAlchemy takes longer to put it together than PostgreSQL to run it
def _due_statement(kinds: tuple[str, ...]) -> Select[*tuple[Any, ...]]:
    return select(
        *(_any(_DUE, kind) for kind in kinds),
        *(_any(_LOST, kind) for kind in kinds),
    )


def _any(reason: _Reason, kind: str) -> ScalarSelect[int]:
    # ORDER BY and LIMIT for the planner's sake: from EXISTS alone it would expect to find one row soon by
    # reading the table, whose pending rows may all be due next week.
    return select(literal(1)).where(_offerable(reason, kind)).order_by(reason.age).limit(1).scalar_subquery()


def outstanding(connection: Connection) -> dict[str, int]:
    """How many offers of each kind no worker has answered yet."""
    return {row.kind: row.waiting for row in connection.execute(_outstanding_statement())}


@cache
def _outstanding_statement() -> Select[*tuple[Any, ...]]:
    return (
        select(Effect.kind, func.count().label("waiting"))
        .where(Effect.state == EffectState.PENDING, Effect.offered_until > NOW)
        .group_by(Effect.kind)
    )


def offer(connection: Connection, seen: Due, rooms: Mapping[str, int], ttl_s: float) -> list[Offer]:
    """Receipt effects as offered: those that a worker lost, then those that are due, oldest first.

    Parameters:
        seen: what there is.
        rooms: how many of each kind at most.
        ttl_s: seconds until an unanswered offer is made again.
    """
    left = dict(rooms)
    lost = _stamp(connection, _LOST, _with_room(seen.lost, left), ttl_s)
    for one in lost:
        left[one.kind] -= 1
    return lost + _stamp(connection, _DUE, _with_room(seen.due, left), ttl_s)


def offer_oldest(connection: Connection, kinds: Collection[str], ttl_s: float) -> list[Offer]:
    """Receipt one effect of these kinds as offered, or none: the one that has been due, or lost, for longest."""
    found = [
        (row.age, reason, kind)
        for kind in kinds
        for reason in (_DUE, _LOST)
        if (row := connection.execute(_oldest(reason, kind, 1)).first()) is not None
    ]
    oldest = min(found, key=lambda one: one[0], default=None)
    if oldest is None:
        return []
    _, reason, kind = oldest
    return _stamp(connection, reason, {kind: 1}, ttl_s)


def _with_room(kinds: Sequence[str], rooms: Mapping[str, int]) -> dict[str, int]:
    return {kind: rooms[kind] for kind in kinds if rooms.get(kind, 0) > 0}


def _stamp(connection: Connection, reason: _Reason, rooms: Mapping[str, int], ttl_s: float) -> list[Offer]:
    if not rooms:
        return []
    offered = connection.execute(
        _stamp_statement(reason, tuple(rooms)),
        {f"room_{kind}": room for kind, room in rooms.items()} | {"ttl": timedelta(seconds=ttl_s)},
    ).all()
    # RETURNING keeps no order.
    return [
        Offer(row.id, row.kind, row.payload, row.tries)
        for row in sorted(offered, key=lambda row: (row.age, row.sequence))
    ]


@cache
def _stamp_statement(reason: _Reason, kinds: tuple[str, ...]) -> ReturningUpdate[Any]:
    chosen = [_oldest(reason, kind, bindparam(f"room_{kind}")).cte(f"oldest_{kind}") for kind in kinds]
    return (
        update(Effect)
        .where(Effect.id.in_(union_all(*(select(oldest.c.id) for oldest in chosen))))
        .values(offered_until=CLOCK + bindparam("ttl", type_=Interval))
        .returning(
            Effect.id,
            Effect.kind,
            Effect.payload,
            Effect.tries,
            reason.age.label("age"),
            Effect.sequence,
            limit_idleness(),
        )
    )


def _oldest(reason: _Reason, kind: str, limit: Any) -> Select[*tuple[Any, ...]]:
    return (
        select(Effect.id, reason.age.label("age"))
        .where(_offerable(reason, kind))
        .order_by(reason.age)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )


def _offerable(reason: _Reason, kind: str) -> ColumnElement[bool]:
    unoffered = or_(Effect.offered_until.is_(None), Effect.offered_until <= NOW)
    return and_(reason.condition, Effect.kind == kind, unoffered)


def withdraw(connection: Connection, effect_ids: Collection[UUID]) -> None:
    """Take back offers that never reached the broker, so that they are made again at once."""
    # Locked in one order: a worker that records a result locks two effects of one target, too.
    mine = (
        select(Effect.id, limit_idleness())
        .where(Effect.id.in_(effect_ids))
        .order_by(Effect.sequence)
        .with_for_update()
    )
    locked = connection.scalars(mine).all()
    connection.execute(update(Effect).where(Effect.id.in_(locked)).values(offered_until=None))
