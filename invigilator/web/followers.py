"""Those who wait for the next events of the log."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from db import event_log, wake
from events.cloudevent import Event
from events.event_types import has_type
from invigilator.web.waiting import Waiters, Waiting


@dataclass(frozen=True, slots=True)
class Page:
    """Some events.

    Parameters:
        events: those that were asked for, in order.
        next: the last position that was looked at.
    """

    events: Sequence[Event]
    next: int


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which events are asked for.

    Parameters:
        types: shell patterns over the whole type. Without any, all are wanted.
        limit: how many at most.
    """

    types: Sequence[str]
    limit: int

    @property
    def rows(self) -> int:
        """How many events to look at for a page: of those with other types, many may be passed over."""
        return event_log.READ_AT_ONCE if self.types else self.limit

    def page(self, events: Sequence[Event], after: int) -> Page:
        """Return what is wanted of events that follow each other.

        Parameters:
            after: what is not above this position is passed over.
        """
        found: list[Event] = []
        for event in events:
            if event.position > after and self._has_type(event.type):
                found.append(event)
                if len(found) == self.limit:
                    return Page(found, event.position)
        return Page(found, events[-1].position if events else after)

    def _has_type(self, event_type: str) -> bool:
        return not self.types or has_type(event_type, self.types)


@dataclass(slots=True, eq=False)
class Follower(Waiting[Page]):
    """Somebody who has seen the log to its end, and waits for what comes next.

    Parameters:
        wanted: which events.
        after: the last position that was looked at.
    """

    wanted: Wanted
    after: int

    def tell(self, events: Sequence[Event]) -> None:
        """Look at events. Whoever wants one of them is woken."""
        page = self.wanted.page(events, self.after)
        if page.events:
            self.settle(page)
        else:
            self.after = max(self.after, page.next)


class Followers(Waiters[Follower]):
    """Tells those who follow the log what comes next, with one look at it for all of them."""

    channel = wake.POSITIONS_CHANNEL

    def look(self, waiting: Sequence[Follower]) -> None:
        after = min(one.after for one in waiting)
        while events := self._reader.ask(partial(event_log.read, after=after)):
            for one in waiting:
                one.tell(events)
            after = events[-1].position
