"""The Protocol of a source, and the choice between the two."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, Self

from events.errors import InvigilatorError


class BrokerAwayError(InvigilatorError):
    """The broker cannot be reached, or has ended the connection."""

    code = "broker_away"


MAX_TAKE_BYTES = 8 * 1024 * 1024
"""Of the messages that are taken at once; a bigger one is taken alone."""


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
        """What waits, at most `limit` messages; when nothing does, wait up to `wait_s` seconds for the first.

        Together they have at most `MAX_TAKE_BYTES`, unless it is one message.

        Until it is acknowledged, a message is the broker's: whatever happens here, it is delivered again.
        """
        ...

    def announce(self, shards: int) -> None:
        """Tell publishers how many shards there are, where the broker has a place for it.

        Parameters:
            shards: as the database says.
        """
        ...

    def held(self) -> int:
        """How many messages it has fetched that `take` has not returned yet."""
        ...

    def ack(self, batch: Sequence[Message]) -> None:
        """Remove a whole batch, in the order in which it was taken."""
        ...

    def close(self) -> None:
        """Let go of the connection."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *exception: object) -> None: ...
