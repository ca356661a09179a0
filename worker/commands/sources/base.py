"""What every broker offers: a source of commands, and counts of what waits in its queues."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, Self

from events.connecting import reason_of
from events.errors import InvigilatorError
from events.sharding import Announcement

INSPECTION_TIMEOUT_S = 10.0
"""Seconds that a broker has to connect or answer when its queues are counted."""

MAX_TAKE_BYTES = 8 * 1024 * 1024
"""How many bytes the messages of one `take` have together; a bigger message is taken alone."""

UNNUMBERED = "invigilator.commands"
"""The name of a queue of commands whose number was forgotten. The names of all queues of commands begin with it."""


class BrokerAwayError(InvigilatorError):
    """The broker cannot be reached, or has ended the connection."""

    code = "broker_away"


def away(error: Exception) -> BrokerAwayError:
    """Return the error to raise when an error of a library says that the broker cannot be asked."""
    return BrokerAwayError(
        f"the broker is away ({reason_of(error)}): check that it is up and that INVIGILATOR_BROKER_URL is right"
    )


@dataclass(frozen=True, slots=True)
class Depth:
    """How much waits in a queue.

    Parameters:
        queue: its name.
        messages: how many there are.
        consumers: how many consume from it; None where the broker does not tell.
    """

    queue: str
    messages: int
    consumers: int | None = None


@dataclass(frozen=True, slots=True)
class Orphan:
    """A queue of commands that nobody reads.

    Parameters:
        queue: its name.
        length: how many messages wait there. On RabbitMQ there may be a queue without any.
    """

    queue: str
    length: int


@dataclass(frozen=True, slots=True)
class About:
    """A broker's server.

    Parameters:
        name: what it is, with its version.
        wrong: what of its configuration loses messages, and what to do.
        notes: what of it could be better.
    """

    name: str
    wrong: Sequence[str] = ()
    notes: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Message:
    """One message as the broker holds it, its body neither decoded nor decompressed.

    `token` is what the source needs to acknowledge it.
    """

    body: bytes
    token: Any
    content_type: str | None = None
    headers: Mapping[str, Any] = field(default_factory=dict)


class Source(Protocol):
    """The commands of one shard, oldest first. Every method raises `BrokerAwayError`."""

    def take(self, limit: int, wait_s: float) -> Sequence[Message]:
        """Return at most `limit` messages that wait. When none waits, wait up to `wait_s` seconds for the first.

        Together they have at most `MAX_TAKE_BYTES`, unless it is one message. The broker keeps a message until it
        is acknowledged, and delivers it again if this process ends before.
        """
        ...

    def told(self) -> Announcement | None:
        """Return what publishers are told of the number of shards. None when it is nothing, as after a wipe."""
        ...

    def announce(self, announcement: Announcement, told: Announcement | None) -> bool:
        """Tell publishers how many shards there are. Returns whether the broker took it.

        Parameters:
            announcement: as the database says.
            told: what publishers were told just before.
        """
        ...

    def put_barrier(self, body: bytes) -> bool:
        """Put a message into the queue, behind everything that is in it. Returns whether the broker took it."""
        ...

    def held(self) -> int:
        """Return how many messages were fetched that `take` has not returned yet."""
        ...

    def is_empty(self) -> bool:
        """Return whether nothing waits, after `take` has returned nothing.

        A broker may hold messages back from us, because a predecessor's connection has not ended.
        """
        ...

    def put_back(self, messages: Sequence[Message]) -> None:
        """Give back the last messages that were taken, which cannot be handled yet. `take` returns them again."""
        ...

    def ack(self, batch: Sequence[Message]) -> None:
        """Remove a whole batch, in the order in which it was taken."""
        ...

    def close(self) -> None:
        """Close the connection."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *exception: object) -> None: ...
