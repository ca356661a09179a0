"""Pausing a kind of effect, and resuming it."""

from datetime import datetime

from sqlalchemy import Connection

from db import pauses
from db.pauses import Pause
from events.errors import InvigilatorError
from invigilator.acts.actor import Action, Actor
from invigilator.acts.transactions import new_act, record
from worker.kinds import EffectKind


class PauseError(InvigilatorError):
    """A kind cannot be paused or resumed so."""

    code = "pause"


def pause(
    connection: Connection, actor: Actor, kind: EffectKind, until: datetime | None, reason: str | None
) -> Pause:
    """Pause a kind, in the caller's transaction. It takes the place of a pause that is on.

    Parameters:
        until: when the pause ends by itself. None for one that lasts until a person ends it.
        reason: shown wherever the pause is. Flower and the audit show it, too.

    Raises:
        PauseError: `until` has passed.
    """
    pauses.lock(connection)
    before = pauses.of_kind(connection, kind)
    if until is not None and until <= pauses.now(connection):
        raise PauseError(f"{until.isoformat()} has passed; name a time to come, or a duration such as 2h")
    pauses.begin(connection, kind.value, until, reason)
    after = pauses.of_kind(connection, kind)
    assert after is not None
    _append(connection, actor, Action.PAUSE, kind, before, after, reason)
    return after


def resume(connection: Connection, actor: Actor, kind: EffectKind, reason: str | None) -> Pause:
    """End the pause of a kind, in the caller's transaction. Returns the pause that was on.

    Raises:
        PauseError: the kind is not paused.
    """
    pauses.lock(connection)
    before = pauses.of_kind(connection, kind)
    if before is None:
        paused = ", ".join(one.kind for one in pauses.current(connection)) or "none"
        raise PauseError(f"{kind} is not paused; paused kinds: {paused}")
    pauses.end(connection, kind.value)
    _append(connection, actor, Action.RESUME, kind, before, None, reason)
    return before


def _append(
    connection: Connection,
    actor: Actor,
    action: Action,
    kind: EffectKind,
    before: Pause | None,
    after: Pause | None,
    reason: str | None,
) -> None:
    # Without their reasons: nothing can ever be taken out of an act's details.
    details = {
        name: None if pause is None else {**pause.as_json(), "reason": None}
        for name, pause in {"before": before, "after": after}.items()
    }
    act = new_act(actor, action, {"kinds": [kind.value]}, number=1, details=details, reason=reason)
    record(connection, act)
