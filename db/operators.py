"""What a person may do to effects. Each change is guarded, in the caller's transaction."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Row

from db import order, totals
from db.processes import NOBODY
from db.states import EffectState
from db.wake import notify

RETRYABLE = (EffectState.FAILED, EffectState.CANCELLED, EffectState.PENDING)
CANCELLABLE = (EffectState.PENDING, EffectState.FAILED)


@dataclass(frozen=True, slots=True)
class Changed:
    """What became of effects that a person wanted to change.

    Parameters:
        before: the states in which the changed ones were.
        refused: the reason for each that was left as it is.
    """

    before: Mapping[UUID, str]
    refused: Mapping[UUID, str]


# Lock by sequence, the order of every other multi-effect lock, to avoid deadlocks. The handler locks the cascades
# that it folds in so, too.
_LOCK = """
SELECT id, kind, state
FROM effects
WHERE id = ANY (%(ids)s::uuid[]) AND state = ANY (%(states)s::text[])
ORDER BY sequence
FOR UPDATE
"""

_WAITING = """
SELECT waiting.id
FROM effects AS effect
JOIN effects AS waiting ON waiting.order_key = effect.order_key
WHERE effect.id = ANY (%(ids)s::uuid[]) AND CASE waiting.state WHEN 'pending' THEN true ELSE false END
"""

# The effects that a claim would supersede: see `overtaken` in `db.effects`.
_OVERTAKEN = """
SELECT DISTINCT ON (effect.id) effect.id, newer.id AS newest
FROM effects AS effect
JOIN effects AS newer ON newer.target = effect.target
    AND newer.sequence > effect.sequence
    AND newer.state <> 'cancelled'
WHERE effect.id = ANY (%(ids)s::uuid[])
ORDER BY effect.id, newer.sequence DESC
"""

_RETRY = """
UPDATE effects
SET state = 'pending',
    due_at = clock_timestamp(),
    offered_until = NULL,
    retrying_since = NULL,
    dropped_at = NULL,
    tries_forgiven = tries
WHERE id = ANY (%(ids)s::uuid[])
"""

_CANCEL = """
UPDATE effects
SET state = 'cancelled', offered_until = NULL, dropped_at = clock_timestamp()
WHERE id = ANY (%(ids)s::uuid[])
RETURNING order_key
"""

_STATES = "SELECT id, state FROM effects WHERE id = ANY (%(ids)s::uuid[])"


def retry(connection: Connection, effect_ids: Collection[UUID], states: Sequence[str] = RETRYABLE) -> Changed:
    """Make effects pending and due now. Their delays, and the time for which they are retried, start anew.

    Parameters:
        states: some of `RETRYABLE`. An effect that is in another one by now is refused.
    """
    locked = _lock(connection, effect_ids, states)
    overtaken = _overtaken(connection, list(locked))
    changed = {effect_id: row for effect_id, row in locked.items() if effect_id not in overtaken}
    connection.exec_driver_sql(_RETRY, {"ids": list(changed)})
    notify(connection)
    totals.add(connection, totals.moved(changed.values(), EffectState.PENDING), NOBODY)
    reasons = {
        effect_id: f"overtaken: {newest} is newer, and on the same target the newest wins"
        for effect_id, newest in overtaken.items()
    }
    return Changed(_states(changed), reasons | _refused(connection, effect_ids, locked, states))


def cancel(
    connection: Connection, effect_ids: Collection[UUID], states: Sequence[str] = CANCELLABLE
) -> Changed:
    """Cancel effects that are pending or failed.

    The effects that wait for them in their order need wait no longer.

    Parameters:
        states: some of `CANCELLABLE`. An effect that is in another one by now is refused.
    """
    # What is freed below is locked here, with the rest, in one order.
    waiting = connection.exec_driver_sql(_WAITING, {"ids": list(effect_ids)}).scalars()
    locked = _lock(connection, {*effect_ids, *waiting}, CANCELLABLE)
    asked = set(effect_ids)
    changed = {
        effect_id: row for effect_id, row in locked.items() if effect_id in asked and row.state in states
    }
    keys = connection.exec_driver_sql(_CANCEL, {"ids": list(changed)}).scalars()
    order.let_next(connection, keys=set(filter(None, keys)))
    totals.add(connection, totals.moved(changed.values(), EffectState.CANCELLED), NOBODY)
    return Changed(_states(changed), _refused(connection, effect_ids, changed, states))


def _lock(
    connection: Connection, effect_ids: Collection[UUID], states: Sequence[str]
) -> dict[UUID, Row[Any]]:
    """Lock those of the effects that are in one of the states. Returns their kinds and states, by id."""
    values = {"ids": list(effect_ids), "states": [str(state) for state in states]}
    return {row.id: row for row in connection.exec_driver_sql(_LOCK, values)}


def _states(rows: Mapping[UUID, Row[Any]]) -> dict[UUID, str]:
    return {effect_id: row.state for effect_id, row in rows.items()}


def _overtaken(connection: Connection, effect_ids: Collection[UUID]) -> dict[UUID, UUID]:
    """The effects that have a newer one on their target, each with the newest."""
    rows = connection.exec_driver_sql(_OVERTAKEN, {"ids": list(effect_ids)})
    return {row.id: row.newest for row in rows}


def _refused(
    connection: Connection,
    effect_ids: Collection[UUID],
    locked: Collection[UUID],
    states: Sequence[str],
) -> dict[UUID, str]:
    others = [effect_id for effect_id in effect_ids if effect_id not in locked]
    rows = connection.exec_driver_sql(_STATES, {"ids": others})
    found = {row.id: row.state for row in rows}
    allowed = " or ".join(states)
    return {
        effect_id: f"is {found[effect_id]}, not {allowed}" if effect_id in found else "no such effect"
        for effect_id in others
    }
