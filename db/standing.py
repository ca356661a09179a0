"""What an effect waits for: read for a worker that could not claim it, so that its task can say why."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection

from db import prepared
from db.order import AHEAD
from db.pauses import CURRENT
from db.states import EffectState


@dataclass(frozen=True, slots=True)
class Standing:
    """An effect as it is now."""

    kind: str
    state: EffectState
    payload: dict[str, Any]
    source: str
    command_id: str
    due_at: datetime
    is_due: bool
    is_taken: bool
    """Whether a worker has a lease on it that has not ended."""
    is_blocked: bool
    """Whether another effect runs on its target."""
    ahead: UUID | None
    """The effect of its order key that it waits for."""
    circuit_open: bool
    circuit_since: datetime | None
    """When the service began to fail. None while it does not."""
    circuit_until: datetime | None
    off_since: datetime | None
    """Since when its webhook is switched off. None while it is not."""
    paused_since: datetime | None
    """Since when its kind is paused. None while it is not."""
    paused_until: datetime | None
    pause_reason: str | None


_LOOK = f"""
SELECT
    effect.kind,
    effect.state,
    effect.payload,
    effect.source,
    effect.command_id,
    effect.due_at,
    effect.due_at <= statement_timestamp() AS is_due,
    coalesce(effect.lease_until >= statement_timestamp(), false) AS is_taken,
    EXISTS (
        SELECT FROM effects AS other
        WHERE other.target = effect.target AND other.state = 'running' AND other.id <> effect.id
    ) AS is_blocked,
    ahead.id AS ahead,
    coalesce(circuit.open_until > statement_timestamp(), false) AS circuit_open,
    circuit.since AS circuit_since,
    circuit.open_until AS circuit_until,
    (SELECT off_since FROM subscribers WHERE name = effect.subscriber) AS off_since,
    pause.since AS paused_since,
    pause.ends_at AS paused_until,
    pause.reason AS pause_reason
FROM effects AS effect
LEFT JOIN circuits AS circuit ON circuit.queue = coalesce(effect.subscriber, %(queue)s)
LEFT JOIN LATERAL ({AHEAD}) AS ahead ON true
LEFT JOIN ({CURRENT}) AS pause ON pause.kind = effect.kind
WHERE effect.id = %(id)s
"""  # noqa: S608 - both parts are ours


def look(connection: Connection, effect_id: UUID, queue: str) -> Standing | None:
    """Read what an effect waits for. None when there is no such effect.

    Parameters:
        queue: names the circuit of the service that the effect calls. A webhook has a circuit of its own.
    """
    row = prepared.execute(connection, _LOOK, {"id": effect_id, "queue": queue}).mappings().first()
    return None if row is None else Standing(**{**row, "state": EffectState(row["state"])})
