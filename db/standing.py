"""Where an effect stands: asked for a worker that could not claim it, so that it can say why."""

from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Select, bindparam, func, select

from db import circuits
from db.clock import NOW
from db.effects import blocked
from db.models import Circuit, Effect, EffectState


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
    """Whether a worker has it whose lease has not ended."""
    is_blocked: bool
    """Whether another effect on its target runs."""
    circuit_open: bool
    circuit_since: datetime | None
    """When the service began to fail; None while it does not."""
    circuit_until: datetime | None


def look(connection: Connection, effect_id: UUID, queue: str) -> Standing | None:
    """See where an effect stands; `queue` names the circuit of its service. None when there is no such effect."""
    row = connection.execute(_statement(), {"effect_id": effect_id, "queue": queue}).first()
    if row is None:
        return None
    values = row._asdict()
    return Standing(**values | {"state": EffectState(row.state)})


@cache
def _statement() -> Select[*tuple[Any, ...]]:
    return (
        select(
            Effect.kind,
            Effect.state,
            Effect.payload,
            Effect.source,
            Effect.command_id,
            Effect.due_at,
            (Effect.due_at <= NOW).label("is_due"),
            func.coalesce(Effect.lease_until >= NOW, False).label("is_taken"),
            blocked().label("is_blocked"),
            circuits.IS_OPEN.label("circuit_open"),
            Circuit.since.label("circuit_since"),
            Circuit.open_until.label("circuit_until"),
        )
        .select_from(Effect)
        .outerjoin(Circuit, Circuit.queue == bindparam("queue"))
        .where(Effect.id == bindparam("effect_id"))
    )
