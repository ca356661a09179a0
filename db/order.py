"""Effects in order: of those that share an order key one runs at a time, oldest first.

A pending effect waits while another one is ahead of it: one of its key that runs, or an older one that is pending.
Whatever ends that one for good, also as failed or cancelled, frees the next. An effect that has begun waits for
nobody, even if its worker was lost: an older one that a person retries then waits for it.

The row of an effect that waits says no more than a later `due_at`, so that the relay does not look at it again and
again. That time is only an upper bound: the end of the one ahead makes the next effect due at once. So an effect is
not forgotten when a worker of a release that does not know order keys has ended the one ahead.
"""

from collections.abc import Collection, Sequence
from uuid import UUID

from sqlalchemy import Connection

from db import prepared
from db.wake import EFFECTS_CHANNEL, notification

# With stale statistics PostgreSQL may scan a partial index of all pending or running effects. The CASE hides the
# state from the planner, so the rows are found by their key.
AHEAD = """
SELECT other.id, other.due_at, other.lease_until
FROM effects AS other
WHERE other.order_key = effect.order_key
    AND other.id <> effect.id
    AND CASE other.state
        WHEN 'running' THEN true
        WHEN 'pending' THEN other.sequence < effect.sequence AND effect.state = 'pending'
        ELSE false
    END
ORDER BY other.sequence
LIMIT 1
"""
"""The effect that is ahead of `effect`; the oldest if there are several."""

_HOLD_BACK = f"""
UPDATE effects
SET due_at = greatest(effects.due_at, effects.offered_until, ahead.due_at, ahead.lease_until),
    offered_until = NULL
FROM unnest(%(ids)s::uuid[]) AS asked (id)
JOIN effects AS effect ON effect.id = asked.id
CROSS JOIN LATERAL ({AHEAD}) AS ahead
WHERE effects.id = effect.id
RETURNING effects.id
"""  # noqa: S608 - both parts are ours

# Lock by sequence, the order of every other multi-effect lock, to avoid deadlocks. So one statement serves targets
# and order keys. The row is written even if it is due already. Otherwise a relay that has locked it would hold it
# back after all, and nobody would free it.
_LET_NEXT = f"""
WITH freed AS (
    UPDATE effects
    SET offered_until = NULL,
        due_at = CASE WHEN order_key IS NULL THEN due_at ELSE least(due_at, statement_timestamp()) END
    WHERE id = ANY (ARRAY(
        SELECT id
        FROM effects
        WHERE id = ANY (ARRAY(
                SELECT effect.id
                FROM effects AS effect
                WHERE effect.target = ANY (%(targets)s::text[])
                    AND CASE effect.state WHEN 'pending' THEN effect.offered_until IS NOT NULL ELSE false END
                UNION ALL
                SELECT next.id
                FROM unnest(%(keys)s::text[]) AS freed (order_key)
                CROSS JOIN LATERAL (
                    SELECT effect.id
                    FROM effects AS effect
                    WHERE effect.order_key = freed.order_key
                        AND CASE effect.state WHEN 'pending' THEN true ELSE false END
                    ORDER BY effect.sequence
                    LIMIT 1
                ) AS next
            ))
            AND CASE state WHEN 'pending' THEN true ELSE false END
        ORDER BY sequence
        FOR UPDATE
    ))
    RETURNING id
)
SELECT {notification(EFFECTS_CHANNEL)} WHERE EXISTS (SELECT FROM freed)
"""  # noqa: S608 - all parts are ours

WAITS_FOR = f"""
CASE WHEN effects.state = 'pending' THEN (
    SELECT ahead.id
    FROM effects AS effect
    CROSS JOIN LATERAL ({AHEAD}) AS ahead
    WHERE effect.id = effects.id
) END
"""  # noqa: S608 - both parts are ours
"""The effect that a row of `effects` waits for in its order. Null if it waits for none, or is not pending."""


def hold_back(connection: Connection, effect_ids: Sequence[UUID]) -> set[UUID]:
    """Make those of the effects wait that have another one ahead, and withdraw their offers. Returns their ids.

    Parameters:
        effect_ids: effects that an earlier statement of this transaction has locked. A statement that both
            locks and looks could miss that the one ahead has just ended.
    """
    if not effect_ids:
        return set()
    return set(prepared.execute(connection, _HOLD_BACK, {"ids": effect_ids}).scalars())


def let_next(connection: Connection, *, targets: Collection[str] = (), keys: Collection[str] = ()) -> None:
    """Let the effects go next that have waited for others, which have now ended.

    Parameters:
        targets: on which nothing runs any more. What waits for one of them may be offered again.
        keys: order keys of effects that have ended for good. The oldest pending effect of each becomes due.
    """
    if not targets and not keys:
        return
    prepared.execute_later(connection, _LET_NEXT, {"targets": list(targets), "keys": list(keys)})
