"""The life of an effect in the database: offer, claim, record. Each change of state is one guarded UPDATE.

Every time is the database's clock, so that the clocks of the workers do not matter.
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
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

from db.attempts import notify
from db.models import Effect, EffectKind, EffectState, Try, TryResult
from db.models.effects import TRY_SEQUENCE

NOW = func.statement_timestamp()
"""To compare with: unlike clock_timestamp() it is stable, and so may be looked up in an index."""
CLOCK = func.clock_timestamp()
"""To write."""


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
    retrying_for_s: float
    """Seconds since the first try."""


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


def _offer(
    connection: Connection, condition: ColumnElement[bool], age: Any, limit: int, ttl_s: float
) -> list[Offer]:
    chosen = (
        select(Effect.id)
        .where(condition, _unoffered())
        .order_by(age)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    offered = connection.execute(
        update(Effect)
        .where(Effect.id.in_(chosen))
        .values(offered_until=_in(ttl_s))
        .returning(Effect.id, Effect.kind, Effect.payload, Effect.tries, age, Effect.sequence)
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
    mine = select(Effect.id).where(Effect.id.in_(effect_ids)).order_by(Effect.sequence).with_for_update()
    locked = connection.scalars(mine).all()
    connection.execute(update(Effect).where(Effect.id.in_(locked)).values(offered_until=None))


# --- claim ---------------------------------------------------------------------------------------------


def claim(connection: Connection, effect_id: UUID, lease_s: float) -> Claim | None:
    """Take a due effect for one try, or None when there is nothing to do.

    An effect with a newer one on its target becomes `superseded` instead. One whose target is being changed
    by another waits for it.

    Raises:
        sqlalchemy.exc.IntegrityError: another worker took an effect on the same target at this very moment.
    """
    values = {"effect_id": effect_id, "lease": timedelta(seconds=lease_s)}
    row = connection.execute(_claim_statement(), values).one_or_none()
    if row is None:
        wait_for_target(connection, effect_id)
        return None
    _close_lost_try(connection, effect_id)
    state, kind, sequence, payload, source, command_id, number, retrying_for = row
    if state == EffectState.SUPERSEDED:
        return None
    connection.execute(insert(Try).values(effect_id=effect_id, number=number, started_at=CLOCK))
    return Claim(
        effect_id, EffectKind(kind), sequence, payload, source, command_id, number, float(retrying_for)
    )


@cache  # SQLAlchemy takes longer to put it together than PostgreSQL to run it
def _claim_statement() -> ReturningUpdate[Any]:
    overtaken = exists().where(overtakes(aliased(Effect)))
    claimable = or_(
        and_(Effect.state == EffectState.PENDING, Effect.due_at <= NOW),
        and_(Effect.state == EffectState.RUNNING, Effect.lease_until < NOW),
    )
    return (
        update(Effect)
        .where(Effect.id == bindparam("effect_id"), claimable, or_(overtaken, ~_blocked()))
        .values(
            state=case((overtaken, EffectState.SUPERSEDED.value), else_=EffectState.RUNNING.value),
            lease_until=case((overtaken, None), else_=CLOCK + bindparam("lease", type_=Interval)),
            tries=Effect.tries + case((overtaken, 0), else_=1),
            retrying_since=func.coalesce(Effect.retrying_since, CLOCK),
            offered_until=None,
        )
        .returning(
            Effect.state,
            Effect.kind,
            TRY_SEQUENCE.next_value(),
            Effect.payload,
            Effect.source,
            Effect.command_id,
            Effect.tries,
            func.extract("epoch", NOW - Effect.retrying_since),
        )
    )


def wait_for_target(connection: Connection, effect_id: UUID) -> None:
    """Do not offer a due effect again while another one runs on its target under a valid lease."""
    waiting = select(Effect.target).where(Effect.id == effect_id, Effect.state == EffectState.PENDING)
    # The lock first, the look after it: who ends the other effect meanwhile sets us free, and that must count.
    target = connection.scalar(waiting.with_for_update())
    if target is None:
        return
    busy_until = (
        select(Effect.lease_until)
        .where(Effect.target == target, Effect.state == EffectState.RUNNING)
        .scalar_subquery()
    )
    connection.execute(update(Effect).where(Effect.id == effect_id).values(offered_until=busy_until))


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


def _close_lost_try(connection: Connection, effect_id: UUID) -> None:
    connection.execute(
        update(Try)
        .where(Try.effect_id == effect_id, Try.result.is_(None))
        .values(result=TryResult.LOST, finished_at=CLOCK, error="its worker did not report back in time")
    )


# --- record --------------------------------------------------------------------------------------------


def finish_try(connection: Connection, effect_id: UUID, number: int) -> bool:
    """The try has succeeded. False, changing nothing, when it is no longer the effect's current try."""
    return _end_try(
        connection, effect_id, number, TryResult.DONE, None, state=EffectState.DONE, done_at=CLOCK
    )


def reschedule_try(connection: Connection, effect_id: UUID, number: int, error: str, delay_s: float) -> bool:
    """The try has failed and will be made again in `delay_s` seconds. False as with `finish_try`."""
    return _end_try(
        connection,
        effect_id,
        number,
        TryResult.RETRY,
        error,
        state=EffectState.PENDING,
        due_at=_in(delay_s),
    )


def fail_try(connection: Connection, effect_id: UUID, number: int, error: str) -> bool:
    """The try has failed for good, until a person says otherwise. False as with `finish_try`."""
    return _end_try(connection, effect_id, number, TryResult.FAILED, error, state=EffectState.FAILED)


def _end_try(
    connection: Connection, effect_id: UUID, number: int, result: TryResult, error: str | None, **values: Any
) -> bool:
    ended = connection.execute(
        update(Effect)
        .where(Effect.id == effect_id, Effect.state == EffectState.RUNNING, Effect.tries == number)
        .values(lease_until=None, offered_until=None, last_error=error, **values)
        .returning(Effect.target)
    ).one_or_none()
    if ended is None:
        return False
    connection.execute(
        update(Try)
        .where(Try.effect_id == effect_id, Try.number == number)
        .values(finished_at=CLOCK, result=result, error=error)
    )
    if ended.target is not None:
        _free_target(connection, ended.target)
    return True


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


def _in(seconds: float) -> ColumnElement[datetime]:
    return CLOCK + literal(timedelta(seconds=seconds))
