"""Who acts, by which way in, and what each role may do."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class Via(StrEnum):
    """The way in."""

    CONSOLE = "console"
    API = "api"
    COMMAND_LINE = "command line"


class Role(StrEnum):
    """What somebody may do. Each role may do what those before it may."""

    VIEWER = "viewer"
    OPERATOR = "operator"
    ADMIN = "admin"


class Action(StrEnum):
    """What people do. The audit stores these words."""

    RETRY = "retry"
    CANCEL = "cancel"
    PAUSE = "pause"
    RESUME = "resume"
    REPLAY = "replay"
    """A message in quarantine."""
    DISCARD = "discard"
    """A message in quarantine."""
    ERASE = "erase"
    WEBHOOK_ON = "webhook on"
    WEBHOOK_OFF = "webhook off"
    REPLAY_EVENTS = "replay events"
    SET_SHARDS = "set shards"
    BEGIN_PARTITIONS = "begin partitions"
    DROP_PARTITION = "drop partition"
    STOP = "stop"
    """An act in bulk, which has the row among its own."""


ACTIONS: Mapping[Action, Role] = {
    Action.RETRY: Role.OPERATOR,
    Action.CANCEL: Role.OPERATOR,
    Action.PAUSE: Role.OPERATOR,
    Action.RESUME: Role.OPERATOR,
    Action.REPLAY: Role.OPERATOR,
    Action.DISCARD: Role.OPERATOR,
    Action.ERASE: Role.ADMIN,
    Action.WEBHOOK_ON: Role.ADMIN,
    Action.WEBHOOK_OFF: Role.ADMIN,
    Action.REPLAY_EVENTS: Role.ADMIN,
    Action.SET_SHARDS: Role.ADMIN,
    Action.BEGIN_PARTITIONS: Role.ADMIN,
    Action.DROP_PARTITION: Role.ADMIN,
    Action.STOP: Role.OPERATOR,
}
"""The least role that may do it."""


def may(role: Role, action: Action) -> bool:
    """Return whether a role may do something.

    Example:
        >>> may(Role.OPERATOR, Action.RETRY), may(Role.VIEWER, Action.RETRY)
        (True, False)
    """
    ranked = list(Role)
    return ranked.index(role) >= ranked.index(ACTIONS[action])


@dataclass(frozen=True, slots=True)
class Actor:
    """Who acts.

    Parameters:
        name: such as `ada@host`, or the name of a token.
        is_claimed: whether nobody has proved that it is who they say.
        via: the way in.
        origin: the address or the host from where it is done. None where it is not known.
    """

    name: str
    is_claimed: bool
    via: Via
    origin: str | None
