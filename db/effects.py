"""The life of an effect in the database: offer, claim, record. Each change of state is one guarded UPDATE.

Every time is the database's clock, so that the clocks of the workers do not matter.
"""

from collections.abc import Collection
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
    case,
    exists,
    func,
    insert,
    literal,
    or_,
    select,
    update,
)
from sqlalchemy.orm import aliased
from sqlalchemy.sql.dml import ReturningUpdate

from db import circuits
from db.attempts import notify
from db.clock import CLOCK, NOW, in_seconds
from db.connect import limit_idleness
from db.models import Circuit, Effect, EffectKind, EffectState, Try, TryResult
from db.models.effects import TRY_SEQUENCE


@dataclass(frozen=True, slots=True)
class Offer:
    """An effect that a worker should look at."""

    id: UUID
    kind: EffectKind
    payload: dict[str, Any]
    tries: int


@dataclass(frozen=True, slots=True)
class Claim:
    """An effect that is this worker's until its lease ends."""

    id: UUID
    kind: EffectKind
    sequence: int
    """Of this try: greater than that of every try before it on the same target, whoever's."""
    payload: dict[str, Any]
    source: str
    command_id: str
    number: int
    """Of this try, from 1."""
    unforgiven: int
    """Tries since a person's retry, or since it was owed, this one included."""
    retrying_for_s: float
    """Seconds since the first of them."""
    lost_tries: int
    """Tries whose workers never reported back, if the one before was such a try; else 0."""
    queue: str
    """Names the circuit of the service that it calls."""
    probe: bool
    """Whether this try is the one call that an open circuit allows."""


@dataclass(frozen=True, slots=True)
class Ended:
    """A try whose end is recorded."""

    troubled: Collection[str]
    """The queues of the services that have failed since their last answer."""


class ProbeTakenError(Exception):
    """The circuit is open, and it is somebody else's call that probes the service."""


# --- offer ---------------------------------------------------------------------------------------------


def kinds_to_offer(connection: Connection) -> list[EffectKind]:
    """The kinds of which an effect is due, or was lost by its worker, and is not offered."""
    answers = connection.execute(_kinds_to_offer_statement()).one()
    return [kind for kind, found in zip(EffectKind, answers, strict=True) if found]


@cache
def _kinds_to_offer_statement() -> Select[*tuple[Any, ...]]:
    # ORDER BY and LIMIT for the planner's sake: from EXISTS alone it would expect to find one row soon by
    # reading the table, whose pending rows may all be due next week.
    return select(
        *(
            func.coalesce(_any(_due(kind), Effect.due_at), _any(_lost(kind), Effect.lease_until))
            for kind in EffectKind
        )
    )


def _any(condition: ColumnElement[bool], age: Any) -> ScalarSelect[int]:
    return select(literal(1)).where(condition, _unoffered()).order_by(age).limit(1).scalar_subquery()


def outstanding_offers(connection: Connection) -> dict[EffectKind, int]:
    """How many offers of each kind no worker has answered yet."""
    counts = connection.execute(
        select(Effect.kind, func.count())
        .where(Effect.state == EffectState.PENDING, Effect.offered_until > NOW)
        .group_by(Effect.kind)
    )
    return {EffectKind(kind): count for kind, count in counts}


def offer(connection: Connection, kind: EffectKind, limit: int, ttl_s: float) -> list[Offer]:
    """Stamp effects of a kind as offered: those that a worker lost, then those that are due, oldest first.

    Parameters:
        kind: the kind of effect.
        limit: how many at most.
        ttl_s: seconds until an unanswered offer is made again.
    """
    lost = _offer(connection, _lost(kind), Effect.lease_until, limit, ttl_s)
    return lost + _offer(connection, _due(kind), Effect.due_at, limit - len(lost), ttl_s)


def offer_oldest(connection: Connection, kinds: Collection[EffectKind], ttl_s: float) -> list[Offer]:
    """Stamp one effect of these kinds as offered, or none: the one that has been due, or lost, for longest."""
    found = [
        connection.execute(_oldest(condition, age, 1, age)).first()
        for kind in kinds
        for condition, age in ((_due(kind), Effect.due_at), (_lost(kind), Effect.lease_until))
    ]
    oldest = min((row for row in found if row is not None), key=lambda row: row[1], default=None)
    if oldest is None:
        return []
    return _stamp(connection, select(Effect.id).where(Effect.id == oldest.id), Effect.due_at, ttl_s)


def _offer(
    connection: Connection, condition: ColumnElement[bool], age: Any, limit: int, ttl_s: float
) -> list[Offer]:
    return _stamp(connection, _oldest(condition, age, limit), age, ttl_s)


def _oldest(condition: ColumnElement[bool], age: Any, limit: int, *columns: Any) -> Select[*tuple[Any, ...]]:
    return (
        select(Effect.id, *columns)
        .where(condition, _unoffered())
        .order_by(age)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )


def _stamp(connection: Connection, chosen: Select[UUID], age: Any, ttl_s: float) -> list[Offer]:
    offered = connection.execute(
        update(Effect)
        .where(Effect.id.in_(chosen))
        .values(offered_until=in_seconds(ttl_s))
        .returning(
            Effect.id, Effect.kind, Effect.payload, Effect.tries, age, Effect.sequence, limit_idleness()
        )
    ).all()
    # RETURNING keeps no order.
    return [
        Offer(row[0], EffectKind(row[1]), row[2], row[3])
        for row in sorted(offered, key=lambda row: (row[4], row[5]))
    ]


def _due(kind: EffectKind) -> ColumnElement[bool]:
    return and_(Effect.state == EffectState.PENDING, Effect.kind == kind, Effect.due_at <= NOW)


def _lost(kind: EffectKind) -> ColumnElement[bool]:
    return and_(Effect.state == EffectState.RUNNING, Effect.kind == kind, Effect.lease_until < NOW)


def _unoffered() -> ColumnElement[bool]:
    return or_(Effect.offered_until.is_(None), Effect.offered_until <= NOW)


def withdraw_offers(connection: Connection, effect_ids: Collection[UUID]) -> None:
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


# --- claim ---------------------------------------------------------------------------------------------


def claim(
    connection: Connection, effect_id: UUID, kind: EffectKind, queue: str, lease_s: float
) -> Claim | None:
    """Take a due effect of a kind for one try, or None when there is nothing to do.

    An effect with a newer one on its target becomes `superseded` instead. One whose target is being changed
    by another waits for it, and one whose circuit is open waits for that.

    Parameters:
        effect_id: the effect.
        kind: its kind.
        queue: names the circuit of the service that it calls.
        lease_s: seconds until another worker may take it, or probe the service.

    Raises:
        ProbeTakenError: somebody else probes the service; roll back.
        sqlalchemy.exc.IntegrityError: another worker took an effect on the same target at this very moment.
    """
    values = {
        "effect_id": effect_id,
        "effect_kind": kind,
        "queue": queue,
        "lease": timedelta(seconds=lease_s),
    }
    if not _lock_claimable(connection, effect_id):
        return None
    row = connection.execute(_claim_statement(), values).one_or_none()
    if row is None:
        _wait_locked(connection, effect_id)
        return None
    lost_tries = _close_lost_try(connection, effect_id)
    state, sequence, payload, source, command_id, number, unforgiven, retrying_for, probe = row
    if state == EffectState.SUPERSEDED:
        if probe:
            notify(connection)  # it was to probe the service, and now the next one may
        return None
    connection.execute(insert(Try).values(effect_id=effect_id, number=number, started_at=CLOCK))
    if probe and not circuits.begin_probe(connection, queue, lease_s):
        raise ProbeTakenError
    return Claim(
        id=effect_id,
        kind=kind,
        sequence=sequence,
        payload=payload,
        source=source,
        command_id=command_id,
        number=number,
        unforgiven=unforgiven,
        retrying_for_s=float(retrying_for),
        lost_tries=lost_tries,
        queue=queue,
        probe=probe,
    )


@cache  # SQLAlchemy takes longer to put it together than PostgreSQL to run it
def _claim_statement() -> ReturningUpdate[Any]:
    overtaken = exists().where(overtakes(aliased(Effect)))
    return (
        update(Effect)
        .where(
            Effect.id == bindparam("effect_id"),
            Effect.kind == bindparam("effect_kind"),
            _claimable(),
            or_(overtaken, ~_blocked()),
            ~circuits.is_open(),
        )
        .values(
            state=case((overtaken, EffectState.SUPERSEDED.value), else_=EffectState.RUNNING.value),
            lease_until=case((overtaken, None), else_=CLOCK + bindparam("lease", type_=Interval)),
            tries=Effect.tries + case((overtaken, 0), else_=1),
            retrying_since=func.coalesce(Effect.retrying_since, CLOCK),
            dropped_at=case((overtaken, CLOCK), else_=None),
            offered_until=None,
        )
        .returning(
            Effect.state,
            TRY_SEQUENCE.next_value(),
            Effect.payload,
            Effect.source,
            Effect.command_id,
            Effect.tries,
            Effect.tries - Effect.tries_forgiven,
            func.extract("epoch", NOW - Effect.retrying_since),
            circuits.has_opened(),
        )
    )


def _claimable() -> ColumnElement[bool]:
    return or_(
        and_(Effect.state == EffectState.PENDING, Effect.due_at <= NOW),
        and_(Effect.state == EffectState.RUNNING, Effect.lease_until < NOW),
    )


def wait(connection: Connection, effect_id: UUID) -> None:
    """Take back the offer of an effect that could not be claimed, so that it is made again when it can be.

    While another one runs on its target, that is when the lease of that one ends; it is set free before, when
    the other reports back. While its circuit is open the relay offers nothing.
    """
    if _lock_claimable(connection, effect_id):
        _wait_locked(connection, effect_id)


def _lock_claimable(connection: Connection, effect_id: UUID) -> bool:
    """Lock an effect that is due and free. False when it is not, or somebody else has it locked.

    The lock first, the look at its target after it, in a statement of its own: one that waits for the lock would
    see the target as it was before. So nobody is waited for. The offer is made again when it expires, and who
    ends another effect on the target at this moment sets this one free.
    """
    return connection.execute(_lock_statement(), {"effect_id": effect_id}).first() is not None


@cache
def _lock_statement() -> Select[*tuple[Any, ...]]:
    claimable = select(Effect.id, limit_idleness()).where(Effect.id == bindparam("effect_id"), _claimable())
    return claimable.with_for_update(skip_locked=True)


def _wait_locked(connection: Connection, effect_id: UUID) -> None:
    other = aliased(Effect)
    busy_until = (
        # Not before its own offer expires, even if that lease has ended: first somebody else gets an offer.
        select(func.greatest(other.lease_until, Effect.offered_until))
        .where(other.target == Effect.target, other.state == EffectState.RUNNING, other.id != Effect.id)
        .scalar_subquery()
    )
    connection.execute(update(Effect).where(Effect.id == effect_id).values(offered_until=busy_until))


def put_off(connection: Connection, effect_id: UUID, seconds: float) -> None:
    """Do not offer an effect that waits for a free worker again for so many seconds."""
    connection.execute(
        update(Effect)
        .where(Effect.id == effect_id, _claimable())
        .values(offered_until=in_seconds(seconds))
        .returning(limit_idleness())
    )


def overtakes(newer: type[Effect]) -> ColumnElement[bool]:
    """Whether `newer`, an alias of the table, is an effect that takes an effect's place on its target."""
    return and_(
        newer.target == Effect.target,
        newer.sequence > Effect.sequence,
        newer.state != EffectState.CANCELLED,
    )


def _blocked() -> ColumnElement[bool]:
    other = aliased(Effect)
    return exists().where(
        other.target == Effect.target, other.state == EffectState.RUNNING, other.id != Effect.id
    )


def _close_lost_try(connection: Connection, effect_id: UUID) -> int:
    closed = connection.execute(
        update(Try)
        .where(Try.effect_id == effect_id, Try.result.is_(None))
        .values(result=TryResult.LOST, finished_at=CLOCK, error="its worker did not report back in time")
    )
    if not closed.rowcount:
        return 0
    lost = select(func.count()).where(Try.effect_id == effect_id, Try.result == TryResult.LOST)
    return connection.scalar(lost) or 0


# --- record --------------------------------------------------------------------------------------------


def finish_try(connection: Connection, effect_id: UUID, number: int) -> Ended | None:
    """The try has succeeded. None, changing nothing, when it is no longer the effect's current try."""
    return _end_try(
        connection, effect_id, number, TryResult.DONE, None, state=EffectState.DONE, done_at=CLOCK
    )


def reschedule_try(
    connection: Connection, effect_id: UUID, number: int, error: str, delay_s: float
) -> Ended | None:
    """The try has failed and will be made again in `delay_s` seconds. None as with `finish_try`."""
    return _end_try(
        connection,
        effect_id,
        number,
        TryResult.RETRY,
        error,
        state=EffectState.PENDING,
        due_at=in_seconds(delay_s),
    )


def fail_try(connection: Connection, effect_id: UUID, number: int, error: str) -> Ended | None:
    """The try has failed for good, until a person says otherwise. None as with `finish_try`."""
    return _end_try(connection, effect_id, number, TryResult.FAILED, error, state=EffectState.FAILED)


def _end_try(
    connection: Connection, effect_id: UUID, number: int, result: TryResult, error: str | None, **values: Any
) -> Ended | None:
    ended = connection.execute(
        update(Effect)
        .where(Effect.id == effect_id, Effect.state == EffectState.RUNNING, Effect.tries == number)
        .values(lease_until=None, offered_until=None, last_error=error, **values)
        .returning(Effect.target, circuits.troubled(), limit_idleness())
    ).one_or_none()
    if ended is None:
        return None
    target, troubled, _ = ended
    connection.execute(
        update(Try)
        .where(Try.effect_id == effect_id, Try.number == number)
        .values(finished_at=CLOCK, result=result, error=error)
    )
    if target is not None:
        _free_target(connection, target)
    return Ended(troubled or ())


def await_circuit(connection: Connection, effect_id: UUID, queue: str) -> None:
    """Make an effect due no sooner than its circuit lets somebody call.

    What has come due meanwhile then goes first, so that an effect that always fails cannot be every probe.
    """
    opens = select(Circuit.open_until).where(Circuit.queue == queue).scalar_subquery()
    connection.execute(
        update(Effect).where(Effect.id == effect_id).values(due_at=func.greatest(Effect.due_at, opens))
    )


def _free_target(connection: Connection, target: str) -> None:
    waiting = connection.execute(
        update(Effect)
        .where(
            Effect.target == target, Effect.state == EffectState.PENDING, Effect.offered_until.is_not(None)
        )
        .values(offered_until=None)
    )
    if waiting.rowcount:
        notify(connection)
