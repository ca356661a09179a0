"""What a feed needs of a broker."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, Self

from events.errors import InvigilatorError


class OvertakenError(InvigilatorError):
    """Another process serves this feed. Nothing of this batch was published."""

    code = "overtaken"


@dataclass(frozen=True, slots=True)
class Publication:
    """An event as the broker gets it.

    Parameters:
        id: the event's.
        type: the event's.
        body: the event, as structured JSON.
    """

    id: str
    type: str
    body: bytes


class Target(Protocol):
    """Where a feed publishes to, over one connection, which one thread uses.

    Every method raises `BrokerAwayError` when the broker cannot be reached or does not take an event.
    """

    def publish(self, publications: Sequence[Publication], epoch: int) -> None:
        """Publish events in order, and return when the broker has all of them.

        After an error nobody knows how many of them it has.

        Parameters:
            epoch: of the tenure.

        Raises:
            OvertakenError: the broker knows a later epoch. RabbitMQ knows none.
        """
        ...

    def close(self) -> None:
        """Close the connection."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *exception: object) -> None: ...
