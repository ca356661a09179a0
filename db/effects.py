"""The life of an effect in the database: claim and record.

Each change of state names the state that the row must have, in the UPDATE itself or in the SELECT FOR UPDATE before
it. All times are the database's, so that the clocks of the workers do not matter.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Row

from db import circuits, event_log, order, prepared, totals
from db.ids import new_receipt
from db.pauses import PAUSED, PAUSED_S
from db.processes import this_process
from db.recordset import Row as EventRow
from db.recordset import recordset
from db.states import EffectState, TryResult
from db.wake import notify
from events.event_types import EffectFailed, EffectRecovered


@dataclass(frozen=True, slots=True)
class Wanted:
    """An effect that a worker wants to run."""

    id: UUID
    kind: str
    queue: str
    """Names the circuit of the service that the effect calls."""


@dataclass(frozen=True, slots=True)
class Claim:
    """An effect that belongs to this worker until its lease ends."""

    id: UUID
    kind: str
    sequence: int
    """A fencing token: greater than that of every earlier try on the same target, whichever worker made it."""
    payload: dict[str, Any]
    source: str
    command_id: str
    attempt_code: str | None
    """None only where it delivers an event that is about no attempt."""
    number: int
    """Counts the tries of the effect, from 1."""
    unforgiven: int
    """Tries since the effect came to be owed, or since a person retried it. This try is included."""
    retrying_for_s: float
    """Seconds since the first of those tries, without the time for which the kind was paused."""
    lost_tries: int
    """How many tries were lost with their workers, if the previous try was. Otherwise 0."""
    queue: str
    """Names the circuit of whom the effect calls: the queue of the service, or the webhook's subscriber."""
    probe: bool
    """Whether this try is the one call that an open circuit allows."""
    traceparent: str | None = None
    """The trace of the command that it follows from."""


@dataclass(frozen=True, slots=True)
class TryEnd:
    """How a try has ended. With `delay_s` the effect is due again after so many seconds."""

    effect_id: UUID
    number: int
    result: TryResult
    error: str | None = None
    delay_s: float | None = None
    cause: str | None = None
    """Why it failed: the id of a cause. None if it did not."""

    @property
    def key(self) -> tuple[UUID, int]:
        """Identifies the try: its effect and its number."""
        return self.effect_id, self.number


@dataclass(frozen=True, slots=True)
class RecordedTry:
    """A try whose end is recorded."""

    failing: set[str]
    """The queues of the services that have failed since their last answer. Tries recorded together share this."""


class ProbeTakenError(Exception):
    """The circuit is open, and another worker's call probes the service."""


# --- claim ---------------------------------------------------------------------------------------------

# Lock first, then look at the target and at what is ahead in a second statement: a statement that both locks and
# looks could miss what has just ended. A setting of the transaction says which effects are locked, because both
# travel in one message, which has one answer. Nobody waits for a lock here, because a batch would wait with it.
#
# With stale statistics, or with none yet, PostgreSQL may scan the index of all pending effects, or of a whole kind.
# The CASE hides the conditions from the planner, so the row is found by id.
_LOCK = """
SELECT
    coalesce(array_agg(id), '{}') AS ids,
    set_config('invigilator.locked', coalesce(array_agg(id), '{}')::text, true),
    set_config('idle_in_transaction_session_timeout', '5s', true)
FROM (
    SELECT id
    FROM effects
    WHERE id = ANY (%(ids)s::uuid[])
        AND CASE
            WHEN state = 'pending' THEN due_at <= statement_timestamp()
            WHEN state = 'running' THEN lease_until < statement_timestamp()
            ELSE false
        END
    FOR UPDATE SKIP LOCKED
) AS locked
"""

# Where one effect is locked alone, its worker holds no other lock, so waiting for it ends in no deadlock.
_LOCK_AND_WAIT = _LOCK.replace("SKIP LOCKED", "")
_WAIT_BRIEFLY = "SELECT set_config('lock_timeout', '1s', true)"

_LOCKED = "current_setting('invigilator.locked')::uuid[]"

# `seen` is materialised, or PostgreSQL would look at the target once for each column that the UPDATE sets.
_CLAIM = f"""
WITH seen AS MATERIALIZED (
    SELECT
        effect.id,
        coalesce(effect.subscriber, wanted.queue) AS queue,
        effect.state AS before,
        effect.retrying_since,
        circuit.open_until IS NOT NULL AS probe,
        target.overtaken,
        target.blocked,
        target.last_sequence,
        ahead.id IS NOT NULL AS waits,
        greatest(effect.due_at, effect.offered_until, ahead.due_at, ahead.lease_until) AS waits_until
    FROM (
        SELECT *
        FROM json_to_recordset(%(wanted)s) AS one (id uuid, kind text, queue text)
        WHERE id = ANY ({_LOCKED})
        LIMIT %(number)s
    ) AS wanted
    JOIN effects AS effect ON effect.id = wanted.id
    LEFT JOIN circuits AS circuit ON circuit.queue = coalesce(effect.subscriber, wanted.queue)
    CROSS JOIN LATERAL (
        SELECT
            coalesce(bool_or(
                other.target = effect.target AND other.sequence > effect.sequence AND other.state <> 'cancelled'
            ), false) AS overtaken,
            coalesce(bool_or(other.state = 'running' AND other.id <> effect.id), false) AS blocked,
            max(last_try.sequence) AS last_sequence
        FROM effects AS other
        LEFT JOIN tries AS last_try ON last_try.effect_id = other.id AND last_try.number = other.tries
        WHERE other.target = effect.target OR other.id = effect.id
    ) AS target
    LEFT JOIN LATERAL ({order.AHEAD}) AS ahead ON true
    WHERE CASE
            WHEN effect.kind <> wanted.kind THEN false
            WHEN effect.state = 'pending' THEN effect.due_at <= statement_timestamp()
            WHEN effect.state = 'running' THEN effect.lease_until < statement_timestamp()
            ELSE false
        END
        AND NOT effect.kind = ANY ({PAUSED})
        AND coalesce(circuit.open_until <= statement_timestamp(), true)
        AND CASE
            WHEN effect.subscriber IS NULL THEN true
            ELSE NOT EXISTS (SELECT FROM subscribers WHERE name = effect.subscriber AND off_since IS NOT NULL)
        END
), claimed AS (
    UPDATE effects AS effect
    SET state = CASE WHEN seen.overtaken THEN 'superseded' ELSE 'running' END,
        lease_until = CASE WHEN NOT seen.overtaken THEN clock_timestamp() + %(lease_s)s * interval '1 s' END,
        tries = effect.tries + CASE WHEN seen.overtaken THEN 0 ELSE 1 END,
        retrying_since = coalesce(effect.retrying_since, clock_timestamp()),
        dropped_at = CASE WHEN seen.overtaken THEN clock_timestamp() END,
        offered_until = NULL
    FROM seen
    WHERE effect.id = seen.id AND NOT seen.waits AND (seen.overtaken OR NOT seen.blocked)
    RETURNING
        effect.id,
        effect.kind,
        effect.state,
        effect.attempt_id,
        effect.payload,
        effect.source,
        effect.command_id,
        effect.traceparent,
        effect.tries AS number,
        effect.tries - effect.tries_forgiven AS unforgiven,
        CASE WHEN seen.retrying_since IS NULL THEN 0.0 ELSE
            extract(epoch FROM statement_timestamp() - seen.retrying_since) - {PAUSED_S}
        END::float8 AS retrying_for_s,
        greatest(
            (extract(epoch FROM clock_timestamp()) * 1000000)::bigint, seen.last_sequence + 1
        ) AS sequence,
        seen.queue,
        seen.probe,
        seen.before
), begun AS (
    INSERT INTO tries (effect_id, number, sequence, started_at)
    SELECT id, number, sequence, clock_timestamp() FROM claimed WHERE state = 'running'
), held_back AS (
    UPDATE effects AS effect
    SET due_at = seen.waits_until, offered_until = NULL
    FROM seen
    WHERE effect.id = seen.id AND seen.waits
    RETURNING effect.id
)
SELECT
    locked.id AS locked_id,
    held_back.id IS NOT NULL AS is_held_back,
    claimed.*,
    (SELECT coalesce(attempt_code, id::text) FROM attempts WHERE id = claimed.attempt_id) AS attempt_code
FROM unnest({_LOCKED}) AS locked (id)
LEFT JOIN claimed ON claimed.id = locked.id
LEFT JOIN held_back ON held_back.id = locked.id
"""  # noqa: S608 - no values

# The effect waits until the lease of the effect that runs on its target ends. But it waits at least until its own
# offer expires, even if that lease has ended: another effect is to get an offer first.
_WAIT = """
UPDATE effects AS effect
SET offered_until = (
    SELECT greatest(other.lease_until, effect.offered_until)
    FROM effects AS other
    WHERE other.target = effect.target AND other.state = 'running' AND other.id <> effect.id
)
WHERE effect.id = ANY (%(ids)s::uuid[])
"""

_PUT_OFF = """
UPDATE effects
SET offered_until = clock_timestamp() + %(seconds)s * interval '1 s'
WHERE id = %(id)s
    AND CASE
        WHEN state = 'pending' THEN due_at <= statement_timestamp()
        WHEN state = 'running' THEN lease_until < statement_timestamp()
        ELSE false
    END
RETURNING set_config('idle_in_transaction_session_timeout', '5s', true)
"""

_CLOSE_LOST_TRIES = """
UPDATE tries AS try
SET result = 'lost', finished_at = clock_timestamp(), error = 'its worker did not report back in time'
FROM effects AS effect
WHERE effect.id = ANY (%(ids)s::uuid[])
    AND try.effect_id = effect.id
    AND try.result IS NULL
    AND (try.number < effect.tries OR effect.state = 'superseded')
RETURNING effect.kind
"""

_COUNT_LOST_TRIES = """
SELECT effect_id, count(*) AS number
FROM tries
WHERE effect_id = ANY (%(ids)s::uuid[]) AND result = 'lost'
GROUP BY effect_id
"""


def claim(
    connection: Connection, wanted: Sequence[Wanted], lease_s: float, *, waits: bool = False
) -> dict[UUID, Claim | None]:
    """Claim due effects for one try each.

    An effect with a newer one on its target becomes `superseded`. An effect whose target another one is changing
    waits for that one, an effect waits for those of its order key that are ahead of it, an effect whose circuit is
    open waits for the circuit, and one of a kind that is paused waits for the end of the pause.

    Parameters:
        wanted: the effects, each once.
        lease_s: seconds until another worker may claim an effect, or probe the service.
        waits: whether to wait, for a second, for a transaction that has locked an effect. Only for one effect.

    Returns:
        the claims by effect. None stands for an effect that has to wait, or that is superseded. An effect that is
        missing is not due, or taken, or locked by another transaction.

    Raises:
        sqlalchemy.exc.OperationalError: the effect stayed locked for a second; roll back.
        ProbeTakenError: another worker probes the service; roll back.
        sqlalchemy.exc.IntegrityError: another worker has just claimed an effect on the same target, or with the
            same order key; roll back.
    """
    chosen = [{"id": one.id, "kind": one.kind, "queue": one.queue} for one in wanted]
    if waits:
        prepared.execute_later(connection, _WAIT_BRIEFLY, {})
    lock = _LOCK_AND_WAIT if waits else _LOCK
    prepared.execute_later(connection, lock, {"ids": [one.id for one in wanted]})
    locked = prepared.execute(
        connection, _CLAIM, {"wanted": recordset(chosen), "number": len(chosen), "lease_s": lease_s}
    ).all()
    rows = [row for row in locked if row.id is not None]
    lost_tries = _close_lost_tries(connection, [row.id for row in rows if row.before == EffectState.RUNNING])
    _wait_locked(connection, [row.locked_id for row in locked if row.id is None and not row.is_held_back])
    superseded = [row for row in rows if row.state == EffectState.SUPERSEDED]
    totals.add(connection, Counter((totals.EFFECTS, row.kind, row.state) for row in superseded))
    begun = [row for row in rows if row.state == EffectState.RUNNING]
    # Lock circuits by queue, the order of every other lock on several circuits, to avoid deadlocks.
    for row in sorted(begun, key=lambda row: str(row.queue)):
        if row.probe and not circuits.begin_probe(connection, row.queue, lease_s):
            raise ProbeTakenError
    if any(row.probe for row in superseded):
        notify(connection)  # it was to probe the service, so the next effect may
    claims = {row.id: _claim(row, lost_tries.get(row.id, 0)) for row in begun}
    return {row.locked_id: claims.get(row.locked_id) for row in locked}


def _claim(row: Row[Any], lost_tries: int) -> Claim:
    return Claim(
        id=row.id,
        kind=row.kind,
        sequence=row.sequence,
        payload=row.payload,
        source=row.source,
        command_id=row.command_id,
        traceparent=row.traceparent,
        attempt_code=row.attempt_code,
        number=row.number,
        unforgiven=row.unforgiven,
        retrying_for_s=row.retrying_for_s,
        lost_tries=lost_tries,
        queue=row.queue,
        probe=row.probe,
    )


def wait(connection: Connection, effect_id: UUID) -> None:
    """Make an effect that could not be claimed wait until it can be.

    While another effect runs on its target, it waits until the lease of that one ends, or until that one reports
    back. While an effect of its order key is ahead of it, it waits for that one. Otherwise its offer is withdrawn,
    and the relay offers it again as soon as its circuit is not open.
    """
    locked: list[UUID] = prepared.execute(connection, _LOCK, {"ids": [effect_id]}).one().ids
    held_back = order.hold_back(connection, locked)
    _wait_locked(connection, [one for one in locked if one not in held_back])


def _wait_locked(connection: Connection, effect_ids: Sequence[UUID]) -> None:
    if effect_ids:
        prepared.execute_later(connection, _WAIT, {"ids": effect_ids})


def put_off(connection: Connection, effect_id: UUID, seconds: float) -> None:
    """Offer an effect again no sooner than after so many seconds: no slot of its service is free."""
    prepared.execute(connection, _PUT_OFF, {"id": effect_id, "seconds": seconds})


def _close_lost_tries(connection: Connection, effect_ids: Sequence[UUID]) -> dict[UUID, int]:
    """Close the tries that were lost with their workers. Returns how many each effect has lost so far."""
    if not effect_ids:
        return {}
    closed = connection.exec_driver_sql(_CLOSE_LOST_TRIES, {"ids": effect_ids}).scalars()
    totals.add(connection, Counter((totals.TRIES, kind, TryResult.LOST) for kind in closed))
    counts = connection.exec_driver_sql(_COUNT_LOST_TRIES, {"ids": effect_ids})
    return {row.effect_id: row.number for row in counts}


# --- record --------------------------------------------------------------------------------------------

# `_LOCK` explains the CASE: it hides the indexes on the state here.
_END_TRIES = """
WITH ended AS (
    UPDATE effects AS effect
    SET state = after.state,
        lease_until = NULL,
        offered_until = NULL,
        last_error = after.error,
        cause = after.cause,
        failed_at = CASE WHEN after.state <> 'done' THEN clock_timestamp() END,
        done_at = CASE WHEN after.state = 'done' THEN clock_timestamp() END,
        due_at = coalesce(clock_timestamp() + after.delay_s * interval '1 s', effect.due_at),
        failure_told = CASE
            WHEN after.state = 'failed' AND effect.event_id IS NULL AND EXISTS (SELECT FROM subscribers) THEN true
            ELSE effect.failure_told
        END
    FROM (
        SELECT
            *,
            CASE result
                WHEN 'done' THEN 'done'
                WHEN 'logged' THEN 'done'
                WHEN 'retry' THEN 'pending'
                WHEN 'failed' THEN 'failed'
            END AS state
        FROM json_to_recordset(%(ends)s)
            AS one (id uuid, number int, result text, error text, delay_s float8, cause text)
        LIMIT %(number)s
    ) AS after
    WHERE effect.id = after.id
        AND CASE WHEN effect.state = 'running' THEN effect.tries = after.number ELSE false END
    RETURNING
        effect.id, effect.target, effect.order_key, effect.state, after.number, after.result, after.error,
        after.cause,
        effect.kind, effect.user_id, effect.attempt_id, effect.traceparent, effect.tries, effect.failure_told
), closed AS (
    UPDATE tries AS try
    SET finished_at = clock_timestamp(), result = ended.result, error = ended.error, cause = ended.cause
    FROM ended
    WHERE try.effect_id = ended.id AND try.number = ended.number
), counted AS (
    INSERT INTO totals (name, labels, writer, value)
    SELECT name, labels, %(writer)s, count(*)
    FROM ended
    CROSS JOIN LATERAL (
        VALUES ('tries', ARRAY[ended.kind, ended.result]), ('effects', ARRAY[ended.kind, ended.state])
    ) AS total (name, labels)
    WHERE name = 'tries' OR ended.state <> 'pending'
    GROUP BY name, labels
    ORDER BY name, labels
    ON CONFLICT (name, labels, writer) DO UPDATE SET value = totals.value + excluded.value
)
SELECT
    id,
    number,
    target,
    order_key,
    state,
    error,
    kind,
    user_id,
    traceparent,
    tries,
    failure_told,
    CASE WHEN failure_told THEN (
        SELECT coalesce(attempt_code, attempts.id::text) FROM attempts WHERE attempts.id = ended.attempt_id
    ) END AS attempt_code,
    clock_timestamp() AS ended_at,
    (SELECT array_agg(queue) FROM circuits) AS failing,
    set_config('idle_in_transaction_session_timeout', '5s', true)
FROM ended
"""

_AWAIT_CIRCUIT = """
UPDATE effects
SET due_at = greatest(due_at, (SELECT open_until FROM circuits WHERE queue = %(queue)s))
WHERE id = %(id)s
"""


def end_tries(connection: Connection, ends: Sequence[TryEnd]) -> dict[tuple[UUID, int], RecordedTry]:
    """Record how tries have ended. A try that is no longer its effect's current one changes nothing.

    Returns the recorded ones by effect and number.
    """
    rows = prepared.execute(
        connection,
        _END_TRIES,
        {"ends": recordset([_end(end) for end in ends]), "number": len(ends), "writer": this_process()},
    ).all()
    order.let_next(
        connection,
        targets={row.target for row in rows if row.target is not None},
        keys={
            row.order_key for row in rows if row.order_key is not None and row.state != EffectState.PENDING
        },
    )
    event_log.write(connection, _news(rows))
    failing = {queue for row in rows for queue in row.failing or ()}
    return {(row.id, row.number): RecordedTry(failing) for row in rows}


def _end(end: TryEnd) -> dict[str, Any]:
    return {
        "id": end.effect_id,
        "number": end.number,
        "result": end.result,
        "error": end.error,
        "delay_s": end.delay_s,
        "cause": end.cause,
    }


_TOLD = {EffectState.FAILED: EffectFailed, EffectState.DONE: EffectRecovered}


def _news(rows: Sequence[Row[Any]]) -> list[EventRow]:
    """The events of effects that have failed for good, and of those that are done after their failure was told."""
    told = [row for row in rows if row.failure_told and row.state in _TOLD]
    return [_told(event_id, row) for event_id, row in zip(new_receipt().ids(), told, strict=False)]


def _told(event_id: UUID, row: Row[Any]) -> EventRow:
    data = _TOLD[row.state](
        effect_id=row.id, kind=row.kind, attempt_code=row.attempt_code, reason=row.error, tries=row.tries
    )
    return event_log.row(
        event_id,
        data,
        row.ended_at,
        subject=row.attempt_code,
        user_id=row.user_id,
        traceparent=row.traceparent,
    )


def await_circuit(connection: Connection, effect_id: UUID, queue: str) -> None:
    """Make an effect due no sooner than its circuit allows a call.

    What has come due in the meantime then goes first, so that an effect that always fails is not every probe.
    """
    connection.exec_driver_sql(_AWAIT_CIRCUIT, {"id": effect_id, "queue": queue})
