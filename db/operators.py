"""What a person may do to effects and to the quarantine. Each change is guarded, in the caller's transaction."""

from collections.abc import Collection, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Row, delete, select, update
from sqlalchemy.orm import aliased

from db.clock import CLOCK, NOW
from db.effects import overtakes
from db.models import Effect, EffectState, QuarantinedMessage
from db.wake import notify
from events.signing import SIGNATURE_HEADER

RETRYABLE = (EffectState.FAILED, EffectState.CANCELLED, EffectState.PENDING)
CANCELLABLE = (EffectState.PENDING, EffectState.FAILED)


# --- effects ---------------------------------------------------------------------------------------------


def retry(connection: Connection, effect_ids: Collection[UUID]) -> dict[UUID, str]:
    """Make effects pending and due now; their delays, and the time that they are retried for, start anew.

    Returns the reason for each effect that was refused and left as it is; the others are done.
    """
    locked = _lock(connection, effect_ids, RETRYABLE)
    overtaken = _overtaken(connection, locked)
    _change(
        connection,
        locked - overtaken.keys(),
        state=EffectState.PENDING,
        due_at=NOW,
        offered_until=None,
        retrying_since=None,
        dropped_at=None,
        tries_forgiven=Effect.tries,
    )
    notify(connection)
    reasons = {
        effect_id: f"overtaken: {newer} is newer, and on the same target the newest wins"
        for effect_id, newer in overtaken.items()
    }
    return reasons | _refused(connection, effect_ids, locked, RETRYABLE)


def cancel(connection: Connection, effect_ids: Collection[UUID]) -> dict[UUID, str]:
    """Cancel effects that are pending or failed. Returns what was refused, as `retry` does."""
    locked = _lock(connection, effect_ids, CANCELLABLE)
    _change(connection, locked, state=EffectState.CANCELLED, offered_until=None, dropped_at=CLOCK)
    return _refused(connection, effect_ids, locked, CANCELLABLE)


def _lock(connection: Connection, effect_ids: Collection[UUID], states: Sequence[EffectState]) -> set[UUID]:
    """Lock those of the effects that are in one of the states.

    In the order in which the handler locks the cascades that it folds in, so that the two cannot deadlock.
    """
    return set(
        connection.scalars(
            select(Effect.id)
            .where(Effect.id.in_(effect_ids), Effect.state.in_(states))
            .order_by(Effect.sequence)
            .with_for_update()
        )
    )


def _overtaken(connection: Connection, effect_ids: Collection[UUID]) -> dict[UUID, UUID]:
    """Those of the effects that a claim would supersede, each with the newest effect on its target."""
    newer = aliased(Effect)
    rows = connection.execute(
        select(Effect.id, newer.id)
        .join(newer, overtakes(newer))
        .where(Effect.id.in_(effect_ids))
        .order_by(newer.sequence)
    )
    return {row[0]: row[1] for row in rows}


def _change(connection: Connection, effect_ids: Collection[UUID], **values: Any) -> None:
    connection.execute(update(Effect).where(Effect.id.in_(effect_ids)).values(**values))


def _refused(
    connection: Connection,
    effect_ids: Collection[UUID],
    locked: Collection[UUID],
    states: Sequence[EffectState],
) -> dict[UUID, str]:
    others = [effect_id for effect_id in effect_ids if effect_id not in locked]
    rows = connection.execute(select(Effect.id, Effect.state).where(Effect.id.in_(others)))
    found = {row.id: row.state for row in rows}
    allowed = " or ".join(states)
    return {
        effect_id: f"is {found[effect_id]}, not {allowed}" if effect_id in found else "no such effect"
        for effect_id in others
    }


# --- quarantine ------------------------------------------------------------------------------------------


def lock_message(connection: Connection, message_id: int) -> Row[Any] | None:
    """Lock a message, and return its shard, body, content_type and signature (None when it had none).

    None when there is no such message. Who asks for the same one at the same time waits.
    """
    return connection.execute(
        select(
            QuarantinedMessage.shard,
            QuarantinedMessage.body,
            QuarantinedMessage.headers["content-type"].astext.label("content_type"),
            QuarantinedMessage.headers[SIGNATURE_HEADER].astext.label("signature"),
        )
        .where(QuarantinedMessage.id == message_id)
        .with_for_update()
    ).one_or_none()


def discard(connection: Connection, message_ids: Collection[int]) -> set[int]:
    """Delete messages from the quarantine. Returns those that were there."""
    return set(
        connection.scalars(
            delete(QuarantinedMessage)
            .where(QuarantinedMessage.id.in_(message_ids))
            .returning(QuarantinedMessage.id)
        )
    )
