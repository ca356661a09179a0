"""Writes events for feeds: as CloudEvents in structured JSON."""

from collections.abc import Sequence
from dataclasses import dataclass

import orjson

from events.cloudevent import Event, as_object
from worker.feeds.base import Publication, Written
from worker.subscribers import Feed


@dataclass(frozen=True, slots=True)
class CloudEventsFormat:
    """Writes the events of the types that a feed names. See `Format`.

    Parameters:
        feed: as the file of subscriptions has it.
        source: of the events.
    """

    feed: Feed
    source: str

    def write(self, events: Sequence[Event]) -> Written:
        """See `Format`."""
        return Written(
            [
                Publication(str(event.id), event.type, orjson.dumps(as_object(event, self.source)))
                for event in events
                if self.feed.wants(event.type)
            ]
        )
