"""What the event bus of an Open edX site is told: which events, and what of them it can carry."""

from datetime import UTC, datetime
from io import BytesIO
from typing import Any
from uuid import UUID

import pytest
from fastavro import parse_schema, schemaless_reader

from db.people import ExamTaker, LearnerContact
from events.cloudevent import Event
from events.vocabulary import Status
from worker.feeds.openedx import bus_type, exam_type
from worker.feeds.openedx_data import ToldAttempt, event_data, is_user_number, schema, why_not

COURSE = "course-v1:edX+DemoX+2026"
CONTENT = "block-v1:edX+DemoX+2026+type@sequential+block@final"
ADA = LearnerContact("42", "ada", "ada@example.org", "Ada Lovelace")
GRACE = LearnerContact("7", "grace", "grace@example.org", None)


def event(event_type: str, **data: Any) -> Event:
    now = datetime(2026, 3, 1, 9, tzinfo=UTC)
    return Event(UUID(int=1), 1, event_type, now, "code", "42", None, data)


def attempt(**differs: str) -> ToldAttempt:
    values = {"user_id": "42", "exam_id": "7", "course_id": COURSE, "content_id": CONTENT, **differs}
    return ToldAttempt.model_validate(values)


@pytest.mark.parametrize(
    ("status", "word"),
    [
        ("submitted", "submitted"),
        ("verified", "verified"),
        ("rejected", "rejected"),
        ("error", "errored"),
        *(
            (status, None)
            for status in Status
            if status not in ("submitted", "verified", "rejected", "error")
        ),
        ("a status of a newer release", None),
    ],
)
def test_a_status_that_the_bus_has_a_type_for(status: str, word: str | None) -> None:
    found = bus_type(event("exam.attempt.status-changed.v1", to_status=status))
    assert found == (None if word is None else f"org.openedx.learning.exam.attempt.{word}.v1")


def test_a_removal_is_a_reset_whatever_the_status_was() -> None:
    found = bus_type(event("exam.attempt.removed.v1", status="created"))
    assert found == "org.openedx.learning.exam.attempt.reset.v1"


@pytest.mark.parametrize("other", ["exam.attempt.created.v1", "exam.command.not-applied.v1"])
def test_other_events_are_not_for_the_bus(other: str) -> None:
    assert bus_type(event(other, status="submitted", to_status="submitted")) is None


@pytest.mark.parametrize("number", ["0", "42", str(2**63 - 1)])
def test_a_user_that_the_bus_can_carry(number: str) -> None:
    assert is_user_number(number)


@pytest.mark.parametrize(
    "text", ["", "u1", "07", "-1", "+1", "4.0", " 4", "4\n", "1_000", "٤٢", "²", str(2**63)]
)
def test_a_user_that_the_bus_cannot_carry(text: str) -> None:
    assert not is_user_number(text)


@pytest.mark.parametrize(
    "differs",
    [
        {},
        {"course_id": "edX/DemoX/2026", "content_id": "i4x://edX/DemoX/sequential/final"},
        {
            "course_id": "ccx-v1:edX+DemoX+2026+ccx@1",
            "content_id": "ccx-block-v1:edX+DemoX+2026+ccx@1+type@sequential+block@d",
        },
    ],
)
def test_an_attempt_that_the_bus_can_carry(differs: dict[str, str]) -> None:
    assert why_not(attempt(**differs)) is None


@pytest.mark.parametrize(
    ("differs", "reason"),
    [
        ({"user_id": "ada"}, "user_id is no integer"),
        ({"content_id": "content-A"}, "content_id is no usage key"),
        ({"content_id": COURSE}, "content_id is no usage key"),
        ({"content_id": f"{CONTENT}\n"}, "content_id is no usage key"),
        ({"course_id": "phys"}, "course_id is no course key"),
        ({"course_id": CONTENT}, "course_id is no course key"),
        ({"course_id": "phys", "user_id": "ada"}, "user_id is no integer"),
    ],
)
def test_an_attempt_that_the_bus_cannot_carry(differs: dict[str, str], reason: str) -> None:
    assert why_not(attempt(**differs)) == reason


@pytest.mark.parametrize(
    ("is_proctored", "is_practice_exam", "expected"),
    [
        (True, True, "practice"),
        (False, True, "practice"),
        (True, False, "proctored"),
        (False, False, "timed"),
    ],
)
def test_the_kind_of_the_exam(is_proctored: bool, is_practice_exam: bool, expected: str) -> None:
    assert exam_type(ExamTaker(ADA, ADA, is_proctored, is_practice_exam)) == expected


def test_the_data() -> None:
    written = BytesIO(event_data(attempt(), "proctored", ADA, GRACE))
    read = schemaless_reader(
        written, parse_schema(schema("org.openedx.learning.exam.attempt.reset.v1")), None
    )
    assert written.read() == b"", "nothing is left over"
    assert read == {
        "exam_attempt": {
            "student_user": {
                "id": 42,
                "is_active": True,
                "pii": {"username": "ada", "email": "ada@example.org", "name": "Ada Lovelace"},
            },
            "course_key": COURSE,
            "usage_key": CONTENT,
            "exam_type": "proctored",
            "requesting_user": {
                "id": 7,
                "is_active": True,
                "pii": {"username": "grace", "email": "grace@example.org", "name": ""},
            },
        }
    }


def test_names_do_not_print() -> None:
    assert "ada" not in repr(ADA).lower()
