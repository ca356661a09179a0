"""The types of events: each has a model, and its members are those of a CloudEvent."""

from datetime import UTC, datetime
from typing import ClassVar
from uuid import UUID

import pytest

from events.cloudevent import Event, as_object, source_of
from events.event_types import EVENT_TYPES, AttemptCreated, EventData, types_of

NAMES = {"username", "email", "full_name", "address", "name"}


def test_no_model_has_a_field_for_names() -> None:
    assert not NAMES & {field for model in EVENT_TYPES.values() for field in model.model_fields}


def test_a_type_has_a_version() -> None:
    assert all(name.startswith("exam.") and name.endswith(".v1") for name in EVENT_TYPES)


class Nameless(EventData):
    """A model that was forgotten."""


class Inherited(AttemptCreated):
    """A model that has another one's type."""


class Doubled(EventData):
    """A model that has taken another one's type."""

    event_type: ClassVar[str] = "exam.attempt.created.v1"


@pytest.mark.parametrize("models", [[Nameless], [Inherited], [AttemptCreated, Doubled]])
def test_a_type_of_its_own_is_needed(models: list[type[EventData]]) -> None:
    with pytest.raises(TypeError, match="needs an `event_type` of its own"):
        types_of(*models)


def event(**values: object) -> Event:
    given = {
        "id": UUID(int=7),
        "position": 12,
        "type": "exam.attempt.created.v1",
        "time": datetime(2026, 3, 1, 9, tzinfo=UTC),
        "subject": "code",
        "user_id": "42",
        "traceparent": None,
        "data": {"exam_id": "é"},
    }
    return Event(**{**given, **values})  # type: ignore[arg-type]


def test_an_event_is_a_cloudevent() -> None:
    assert as_object(event(), source_of("main")) == {
        "specversion": "1.0",
        "id": "00000000-0000-0000-0000-000000000007",
        "source": "/invigilator/main",
        "type": "exam.attempt.created.v1",
        "time": "2026-03-01T09:00:00Z",
        "subject": "code",
        "partitionkey": "42",
        "sequence": "00000000000000000012",
        "datacontenttype": "application/json",
        "data": {"exam_id": "é"},
    }


def test_what_an_event_has_not_is_left_out() -> None:
    written = as_object(event(subject=None, user_id=None, traceparent="00-1-2-01"), "/x")
    assert not {"subject", "partitionkey"} & written.keys()
    assert written["traceparent"] == "00-1-2-01"
