"""Writes events in the format of an Open edX site's event bus, that of the public package `edx-event-bus-redis`.

An entry of the stream has a field for each attribute of the event, and one for its data. Names and addresses, which
that data holds, are read here. docs/decisions/0036-open-edx-without-its-packages.md has the reasons.
"""

import socket
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC

from sqlalchemy import Engine

from db.people import ExamTaker, Sitting, exam_takers
from events.cloudevent import Event
from events.event_types import AttemptRemoved, AttemptStatusChanged
from events.vocabulary import Status
from worker.feeds.base import Publication, Written
from worker.feeds.openedx_data import ToldAttempt, event_data, is_user_number, why_not

SOURCELIB = "10.5.0"
"""The release of `openedx-events` that the schema is that of."""

BUS_TYPE = "org.openedx.learning.exam.attempt.{}.v1"

WORDS = {
    Status.SUBMITTED: "submitted",
    Status.VERIFIED: "verified",
    Status.REJECTED: "rejected",
    Status.ERROR: "errored",
}
"""The bus's word for the status that an attempt has reached. It has none for the others."""


def bus_type(event: Event) -> str | None:
    """Return the type that an event has on the bus. None when the bus has no such event.

    Example:
        >>> from datetime import UTC, datetime
        >>> from uuid import uuid4
        >>> now = datetime(2026, 3, 1, tzinfo=UTC)
        >>> bus_type(Event(uuid4(), 7, "exam.attempt.removed.v1", now, None, "42", None, {}))
        'org.openedx.learning.exam.attempt.reset.v1'
    """
    if event.type == AttemptRemoved.event_type:
        return BUS_TYPE.format("reset")
    if event.type == AttemptStatusChanged.event_type and event.data["to_status"] in WORDS:
        return BUS_TYPE.format(WORDS[event.data["to_status"]])
    return None


def exam_type(taker: ExamTaker) -> str:
    """Return what the bus calls the kind of an exam."""
    if taker.is_practice_exam:
        return "practice"
    return "proctored" if taker.is_proctored else "timed"


@dataclass(frozen=True, slots=True)
class News:
    """An event of the log that the bus has a type for.

    Parameters:
        event: as the log has it.
        bus_type: its type on the bus.
        attempt: what it tells.
    """

    event: Event
    bus_type: str
    attempt: ToldAttempt

    def sitting(self) -> Sitting:
        """Return whose names are needed. Of who asked for a removal only a user that the bus can carry."""
        requested_by = self.attempt.requested_by
        return Sitting(
            event_id=self.event.id,
            user_id=self.attempt.user_id,
            exam_id=self.attempt.exam_id,
            requested_by=requested_by if requested_by and is_user_number(requested_by) else None,
        )


@dataclass(frozen=True, slots=True)
class OpenEdxFormat:
    """Writes what happens to attempts for the event bus of a site. See `Format`.

    Parameters:
        engine: where names and addresses are read.
        source: of the events.
        host: the machine that publishes.
    """

    engine: Engine
    source: str
    host: str = field(default_factory=socket.gethostname)

    def write(self, events: Sequence[Event]) -> Written:
        """See `Format`. Skips what the bus cannot carry."""
        carried, skipped = [], []
        for event in events:
            name = bus_type(event)
            if name is None:
                continue
            attempt = ToldAttempt.model_validate(event.data)
            reason = why_not(attempt)
            if reason is None:
                carried.append(News(event, name, attempt))
            else:
                skipped.append(f"event {event.id}: its {reason}")
        return Written(self._publications(carried), skipped)

    def _publications(self, news: Sequence[News]) -> Sequence[Publication]:
        if not news:
            return []
        with self.engine.begin() as connection:
            takers = exam_takers(connection, [one.sitting() for one in news])
        return [self._publication(one, takers[one.event.id]) for one in news]

    def _publication(self, news: News, taker: ExamTaker) -> Publication:
        event = news.event
        attributes = {
            "type": news.bus_type,
            "id": str(event.id),
            "source": self.source,
            "time": event.time.astimezone(UTC).isoformat(),
            "minorversion": "0",
            "sourcehost": self.host,
            "sourcelib": SOURCELIB,
        }
        body = event_data(news.attempt, exam_type(taker), taker.learner, taker.requester)
        return Publication(str(event.id), news.bus_type, body, attributes)
