"""The life of an effect in the database: claim and record. Each change of state is one guarded UPDATE.

Every time is the database's clock, so that the clocks of the workers do not matter.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    Connection,
    FromClause,
    Integer,
    Interval,
    Row,
    Select,
    Text,
    Update,
    Uuid,
    and_,
    any_,
    bindparam,
    case,
    exists,
    false,
    func,
    insert,
    or_,
    outerjoin,
    select,
    true,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import aliased

from db import circuits
from db.clock import CLOCK, MICROSECONDS, NOW, in_seconds
from db.connect import limit_idleness
from db.models import Circuit, Effect, EffectState, Try, TryResult
from db.rows import rows_from_arrays
from db.wake import notify


@dataclass(frozen=True, slots=True)
class Wanted:
    """An effect that a worker would run."""

    id: UUID
    kind: str
    queue: str
    """Names the circuit of the service that it calls."""


@dataclass(frozen=True, slots=True)
class Claim:
    """An effect that is this worker's until its lease ends."""

    id: UUID
    kind: str
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
class TryEnd:
    """How a try has ended. With `delay_s`, the effect is due again in so many seconds."""

    effect_id: UUID
    number: int
    result: TryResult
    error: str | None = None
    delay_s: float | None = None

    @property
    def key(self) -> tuple[UUID, int]:
        """Which try."""
        return self.effect_id, self.number


@dataclass(frozen=True, slots=True)
class RecordedTry:
    """A try whose end is recorded."""

    failing: set[str]
    """The queues of the services that have failed since their last answer. Shared by those that end together."""


class ProbeTakenError(Exception):
    """The circuit is open, and it is somebody else's call that probes the service."""


# --- claim ---------------------------------------------------------------------------------------------


def claim(connection: Connection, wanted: Sequence[Wanted], lease_s: float) -> dict[UUID, Claim]:
    """Take due effects for one try each; those with nothing to do are missing.

    An effect with a newer one on its target becomes `superseded` instead. One whose target is being changed
    by another waits for it, and one whose circuit is open waits for that.

    Parameters:
        wanted: the effects, each once.
        lease_s: seconds until another worker may take one, or probe the service.

    Raises:
        ProbeTakenError: somebody else probes a service; roll back.
        sqlalchemy.exc.IntegrityError: another worker took an effect on the same target at this very moment.
    """
    locked = _lock_claimable(connection, [one.id for one in wanted])
    if not locked:
        return {}
    chosen = [one for one in wanted if one.id in locked]
    rows = connection.execute(
        _claim_statement(),
        {
            "wanted_id": [one.id for one in chosen],
            "wanted_kind": [one.kind for one in chosen],
            "wanted_queue": [one.queue for one in chosen],
            "lease": timedelta(seconds=lease_s),
        },
    ).all()
    lost_tries = _close_lost_tries(connection, [row.id for row in rows if row.before == EffectState.RUNNING])
    if left := locked.difference(row.id for row in rows):
        _wait_locked(connection, left)
    begun = [row for row in rows if row.state == EffectState.RUNNING]
    for row in sorted(begun, key=lambda row: str(row.queue)):  # all lock circuits in one order
        if row.probe and not circuits.begin_probe(connection, row.queue, lease_s):
            raise ProbeTakenError
    if any(row.probe for row in rows if row.state == EffectState.SUPERSEDED):
        notify(connection)  # it was to probe the service, and now the next one may
    return {row.id: _claim(row, lost_tries.get(row.id, 0)) for row in begun}


def _claim(row: Row[Any], lost_tries: int) -> Claim:
    return Claim(
        id=row.id,
        kind=row.kind,
        sequence=row.sequence,
        payload=row.payload,
        source=row.source,
        command_id=row.command_id,
        number=row.number,
        unforgiven=row.unforgiven,
        retrying_for_s=float(row.retrying_for_s),
        lost_tries=lost_tries,
        queue=row.queue,
        probe=row.probe,
    )


@cache  # SQLAlchemy takes longer to put it together than PostgreSQL to run it
def _claim_statement() -> Select[*tuple[Any, ...]]:
    wanted = rows_from_arrays("wanted", id=Uuid, kind=Text, queue=Text)
    target = _target()
    # Materialised, or PostgreSQL would look once for each column that the UPDATE sets.
    seen = (
        select(
            wanted,
            Effect.state.label("before"),
            target.c.overtaken,
            target.c.blocked,
            target.c.last_sequence,
            circuits.HAS_OPENED.label("probe"),
        )
        .select_from(
            wanted.join(Effect, Effect.id == wanted.c.id)
            .outerjoin(Circuit, Circuit.queue == wanted.c.queue)
            .join(target, true())
        )
        .where(Effect.kind == wanted.c.kind, _claimable(), ~circuits.IS_OPEN)
        .cte("seen")
        .prefix_with("MATERIALIZED")
    )
    overtaken = seen.c.overtaken
    claimed = (
        update(Effect)
        .where(Effect.id == seen.c.id, or_(overtaken, ~seen.c.blocked))
        .values(
            state=case((overtaken, EffectState.SUPERSEDED.value), else_=EffectState.RUNNING.value),
            lease_until=case((overtaken, None), else_=CLOCK + bindparam("lease", type_=Interval)),
            tries=Effect.tries + case((overtaken, 0), else_=1),
            retrying_since=func.coalesce(Effect.retrying_since, CLOCK),
            dropped_at=case((overtaken, CLOCK), else_=None),
            offered_until=None,
        )
        .returning(
            Effect.id,
            Effect.kind,
            Effect.state,
            func.greatest(MICROSECONDS, seen.c.last_sequence + 1).label("sequence"),
            Effect.payload,
            Effect.source,
            Effect.command_id,
            Effect.tries.label("number"),
            (Effect.tries - Effect.tries_forgiven).label("unforgiven"),
            func.extract("epoch", NOW - Effect.retrying_since).label("retrying_for_s"),
            seen.c.queue,
            seen.c.probe,
            seen.c.before,
        )
        .cte("claimed")
    )
    begun = (
        insert(Try)
        .from_select(
            ["effect_id", "number", "sequence", "started_at"],
            select(claimed.c.id, claimed.c.number, claimed.c.sequence, CLOCK).where(
                claimed.c.state == EffectState.RUNNING
            ),
        )
        .cte("begun")
    )
    return select(claimed).add_cte(begun)


def _claimable() -> ColumnElement[bool]:
    return _unindexed(
        or_(
            and_(Effect.state == EffectState.PENDING, Effect.due_at <= NOW),
            and_(Effect.state == EffectState.RUNNING, Effect.lease_until < NOW),
        )
    )


def _unindexed(condition: ColumnElement[bool]) -> ColumnElement[bool]:
    """The same condition, for rows that are found by something else: their ids, or their target.

    PostgreSQL would go through an index of all pending effects where it last counted few, however many there are
    now, and were since.
    """
    return case((condition, true()), else_=false())


def wait(connection: Connection, effect_id: UUID) -> None:
    """Take back the offer of an effect that could not be claimed, so that it is made again when it can be.

    While another one runs on its target, that is when the lease of that one ends; it is set free before, when
    the other reports back. While its circuit is open the relay offers nothing.
    """
    if locked := _lock_claimable(connection, [effect_id]):
        _wait_locked(connection, locked)


def _lock_claimable(connection: Connection, effect_ids: Collection[UUID]) -> set[UUID]:
    """Lock those effects that are due and free, and that nobody else has locked.

    The lock first, the look at the target after it, in a statement of its own: one that waits for the lock would
    see the target as it was before. So nobody is waited for. The offer is made again when it expires, and who
    ends another effect on the target at this moment sets this one free.
    """
    return set(connection.scalars(_lock_statement(), {"effect_ids": list(effect_ids)}))


@cache
def _lock_statement() -> Select[*tuple[Any, ...]]:
    wanted = any_(bindparam("effect_ids", type_=ARRAY(Uuid)))
    claimable = select(Effect.id, limit_idleness()).where(Effect.id == wanted, _claimable())
    return claimable.with_for_update(skip_locked=True)


def _wait_locked(connection: Connection, effect_ids: Collection[UUID]) -> None:
    other = aliased(Effect)
    busy_until = (
        # Not before its own offer expires, even if that lease has ended: first somebody else gets an offer.
        select(func.greatest(other.lease_until, Effect.offered_until))
        .where(other.target == Effect.target, other.state == EffectState.RUNNING, other.id != Effect.id)
        .scalar_subquery()
    )
    connection.execute(update(Effect).where(Effect.id.in_(effect_ids)).values(offered_until=busy_until))


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


def blocked() -> ColumnElement[bool]:
    """Whether another effect on its target runs."""
    other = aliased(Effect)
    return exists().where(
        other.target == Effect.target, other.state == EffectState.RUNNING, other.id != Effect.id
    )


def _target() -> FromClause:
    """What the effects on an effect's target, itself included, say about it: one look for all of it."""
    other = aliased(Effect)
    its_last_try = and_(Try.effect_id == other.id, Try.number == other.tries)
    is_running = and_(other.state == EffectState.RUNNING, other.id != Effect.id)
    return (
        select(
            func.coalesce(func.bool_or(overtakes(other)), false()).label("overtaken"),
            func.coalesce(func.bool_or(is_running), false()).label("blocked"),
            func.max(Try.sequence).label("last_sequence"),
        )
        .select_from(outerjoin(other, Try, its_last_try))
        .where(or_(other.target == Effect.target, other.id == Effect.id))
        .lateral("target")
    )


def _close_lost_tries(connection: Connection, effect_ids: Collection[UUID]) -> dict[UUID, int]:
    """Close the tries whose workers have lost these effects. Returns how often each was lost up to now."""
    if not effect_ids:
        return {}
    connection.execute(
        update(Try)
        .where(
            Try.effect_id == Effect.id,
            Effect.id.in_(effect_ids),
            Try.result.is_(None),
            or_(Try.number < Effect.tries, Effect.state == EffectState.SUPERSEDED),
        )
        .values(result=TryResult.LOST, finished_at=CLOCK, error="its worker did not report back in time")
    )
    counts = (
        select(Try.effect_id, func.count())
        .where(Try.effect_id.in_(effect_ids), Try.result == TryResult.LOST)
        .group_by(Try.effect_id)
    )
    return {row[0]: row[1] for row in connection.execute(counts)}


# --- record --------------------------------------------------------------------------------------------


def end_tries(connection: Connection, ends: Sequence[TryEnd]) -> dict[tuple[UUID, int], RecordedTry]:
    """Record how tries have ended. For those that are no longer their effects' current tries nothing changes.

    Returns the others, by effect and number.
    """
    rows = connection.execute(
        _end_statement(),
        {
            "end_id": [end.effect_id for end in ends],
            "end_number": [end.number for end in ends],
            "end_result": [end.result.value for end in ends],
            "end_error": [end.error for end in ends],
            "end_delay": [None if end.delay_s is None else timedelta(seconds=end.delay_s) for end in ends],
        },
    ).all()
    targets = [row.target for row in rows if row.target is not None]
    if targets:
        _free_targets(connection, targets)
    failing = {queue for row in rows for queue in row.failing or ()}
    return {(row.id, row.number): RecordedTry(failing) for row in rows}


_STATE_AFTER = {
    TryResult.DONE: EffectState.DONE,
    TryResult.LOGGED: EffectState.DONE,
    TryResult.RETRY: EffectState.PENDING,
    TryResult.FAILED: EffectState.FAILED,
}


@cache
def _end_statement() -> Select[*tuple[Any, ...]]:
    end = rows_from_arrays("end", id=Uuid, number=Integer, result=Text, error=Text, delay=Interval)
    state = case({result.value: state.value for result, state in _STATE_AFTER.items()}, value=end.c.result)
    ended = (
        update(Effect)
        .where(Effect.id == end.c.id, Effect.state == EffectState.RUNNING, Effect.tries == end.c.number)
        .values(
            state=state,
            lease_until=None,
            offered_until=None,
            last_error=end.c.error,
            done_at=case((state == EffectState.DONE, CLOCK), else_=None),
            due_at=func.coalesce(CLOCK + end.c.delay, Effect.due_at),
        )
        .returning(Effect.id, Effect.target, end.c.number, end.c.result, end.c.error)
        .cte("ended")
    )
    closed = (
        update(Try)
        .where(Try.effect_id == ended.c.id, Try.number == ended.c.number)
        .values(finished_at=CLOCK, result=ended.c.result, error=ended.c.error)
        .returning(Try.effect_id)
        .cte("closed")
    )
    return select(
        ended.c.id, ended.c.number, ended.c.target, circuits.failing().label("failing"), limit_idleness()
    ).add_cte(closed)


def await_circuit(connection: Connection, effect_id: UUID, queue: str) -> None:
    """Make an effect due no sooner than its circuit lets somebody call.

    What has come due meanwhile then goes first, so that an effect that always fails cannot be every probe.
    """
    opens = select(Circuit.open_until).where(Circuit.queue == queue).scalar_subquery()
    connection.execute(
        update(Effect).where(Effect.id == effect_id).values(due_at=func.greatest(Effect.due_at, opens))
    )


def _free_targets(connection: Connection, targets: Collection[str]) -> None:
    waiting = connection.execute(_free_statement(), {"targets": list(targets)})
    if waiting.rowcount:
        notify(connection)


@cache
def _free_statement() -> Update:
    # In the order in which those lock several effects who have not locked any before.
    waiting = (
        select(Effect.id)
        .where(
            Effect.target == any_(bindparam("targets", type_=ARRAY(Text))),
            _unindexed(and_(Effect.state == EffectState.PENDING, Effect.offered_until.is_not(None))),
        )
        .order_by(Effect.sequence)
        .with_for_update()
    )
    return update(Effect).where(Effect.id.in_(waiting)).values(offered_until=None)
