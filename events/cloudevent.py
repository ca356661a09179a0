"""An event of the log, and its members as a CloudEvents 1.0 event in structured JSON mode."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from .times import render_time

POSITION_DIGITS = 20
"""Positions are written with leading zeros, so that they sort as text."""


@dataclass(frozen=True, slots=True)
class Event:
    """One event of the log.

    Parameters:
        id: the same in every copy and replay.
        position: its place in the log.
        type: one of `events.event_types.EVENT_TYPES`.
        time: when what it tells was handled, with an offset.
        subject: the attempt's code, or None.
        user_id: the learner, or None. Events of one learner are in order.
        traceparent: the trace of the command (W3C Trace Context), or None.
        data: as its model has it, in plain JSON values.
    """

    id: UUID
    position: int
    type: str
    time: datetime
    subject: str | None
    user_id: str | None
    traceparent: str | None
    data: Mapping[str, Any]


def source_of(instance: str) -> str:
    """Return the `source` of the events of an instance of Invigilator."""
    return f"/invigilator/{instance}"


def as_object(event: Event, source: str) -> dict[str, Any]:
    """Return an event as the members of its JSON object. Attributes without a value are left out.

    Parameters:
        source: as `source_of` returns it.
    """
    attributes = {
        "specversion": "1.0",
        "id": str(event.id),
        "source": source,
        "type": event.type,
        "time": render_time(event.time),
        "subject": event.subject,
        "partitionkey": event.user_id,
        "sequence": f"{event.position:0{POSITION_DIGITS}}",
        "traceparent": event.traceparent,
        "datacontenttype": "application/json",
    }
    return {name: value for name, value in attributes.items() if value is not None} | {"data": event.data}
