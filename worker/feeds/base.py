"""What a feed consists of: a format for its events, and a target that takes them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, Self

from events.cloudevent import Event
from events.errors import InvigilatorError


class OvertakenError(InvigilatorError):
    """Another process serves this feed. It goes on from the cursor, so what this one published may come again."""

    code = "overtaken"


@dataclass(frozen=True, slots=True)
class Publication:
    """An event as the broker gets it.

    Parameters:
        id: the event's.
        type: the event's.
        body: the event as structured JSON, or its data, where the attributes stand beside it.
        attributes: those that stand beside the body. RabbitMQ gets none.
    """

    id: str
    type: str
    body: bytes
    attributes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Written:
    """Some events in the format of a feed.

    Parameters:
        publications: those that the feed gets, in order.
        skipped: for each event that the format cannot hold, its id and why.
    """

    publications: Sequence[Publication]
    skipped: Sequence[str] = ()

    @property
    def note(self) -> str | None:
        """What a person should know of the skipped ones, in one line. None when there are none."""
        return f"skipped {len(self.skipped)}, such as {self.skipped[0]}" if self.skipped else None


class Format(Protocol):
    """How events are written for a feed."""

    def write(self, events: Sequence[Event]) -> Written:
        """Write those of the events that the feed wants.

        Raises:
            sqlalchemy.exc.DBAPIError: what the format needs besides could not be read.
        """
        ...


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
