"""Telling a subscriber again."""

from sqlalchemy import Connection

from db import subscribers
from events.errors import InvigilatorError
from invigilator.acts.actor import Action, Actor
from invigilator.acts.transactions import new_act, record


class ReplayRefusedError(InvigilatorError):
    """There is no such subscriber, or the log does not have what comes after the position."""

    code = "replay_refused"


def replay(connection: Connection, actor: Actor, name: str, after: int, reason: str | None) -> None:
    """Tell a subscriber again what comes after a position, in the caller's transaction.

    Parameters:
        name: such as `feed.lms`.
        after: a position of the log.
        reason: why, in the actor's words.

    Raises:
        ReplayRefusedError: it cannot be told that.
    """
    before = {one.name: one.position for one in subscribers.standings(connection)}
    if (refused := subscribers.replay(connection, name, after)) is not None:
        raise ReplayRefusedError(refused)
    details = {"before": {"position": before.get(name)}, "after": {"position": after}}
    wanted = {"subscriber": name, "after": after}
    act = new_act(actor, Action.REPLAY_EVENTS, wanted, number=1, details=details, reason=reason)
    record(connection, act)
