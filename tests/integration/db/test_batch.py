"""What a batch writes is what is recorded, column by column, and what the next one reads."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Connection, Engine, select, text

from db import batch
from db.batch import Changes, Needs
from db.models import Attempt, Base, Course, Effect, Event, Exam, HandledCommand, Learner, Transition
from db.recordset import Row
from tests.unit.events.messages import TRACE

MOMENT = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)


def moment(minutes: int) -> datetime:
    return MOMENT + timedelta(minutes=minutes)


COURSES = [
    {
        "course_id": "course",
        "name": "Physics",
        "provider": "remote",
        "gives_credit": False,
        "described_at": moment(10),
    }
]
EXAMS = [
    # Any two of the three booleans differ in one of the exams.
    {
        "exam_id": f"exam-{number}",
        "course_id": "course",
        "content_id": f"content-{number}",
        "exam_name": f"Exam {number}",
        "is_proctored": number == 1,
        "is_practice_exam": number == 2,
        "is_active": number == 3,
        "time_limit_mins": 60 + number,
        "described_at": moment(20 + number),
    }
    for number in (1, 2, 3)
]
LEARNERS = [
    {
        "user_id": "42",
        "username": "ada",
        "email": "ada@example.org",
        "full_name": "Ada Lovelace",
        "language": "en",
        "time_zone": "Europe/London",
        "described_at": moment(30),
    }
]
ATTEMPTS = [
    {
        "id": UUID(int=number),
        "exam_id": f"exam-{number}",
        "user_id": "42",
        "attempt_code": f"code-{number}",
        "status": "submitted",
        "taking_as_proctored": number == 1,
        "is_sample_attempt": number == 2,
        "external_id": f"external-{number}",
        "external_ids": [f"external-{number}", "before"],
        "started_at": moment(1),
        "completed_at": moment(2),
        "credit_owed": number == 3,
        "credit_told": [["course", f"content-{number}"]],
        "version": 7,
        "created_at": moment(3),
        "removed_at": None,
    }
    for number in (1, 2, 3)
]
TRANSITIONS = [
    {
        "id": UUID(int=11),
        "attempt_id": UUID(int=1),
        "version": 7,
        "from_status": "started",
        "to_status": "submitted",
        "at": moment(4),
        "recorded_at": moment(5),
        "source": "/lms",
        "command_id": "command",
        "effect_id": UUID(int=21),
    }
]
EFFECTS = [
    {
        "id": UUID(int=21),
        "kind": "cascade_decline",
        "state": "pending",
        "attempt_id": UUID(int=1),
        "user_id": "42",
        "target": "target",
        "order_key": "key",
        "payload": {"exam_id": "exam-1", "user_id": "42"},
        "source": "/lms",
        "command_id": "command",
        "traceparent": TRACE,
        "done_at": None,
    }
]
EVENTS = [
    {
        "id": UUID(int=31),
        "type": "exam.attempt.status-changed.v1",
        "time": moment(5),
        "subject": "code-1",
        "user_id": "42",
        "traceparent": TRACE,
        "data": {"exam_id": "exam-1"},
    }
]
CHANGES = Changes(
    courses=COURSES,
    exams=EXAMS,
    learners=LEARNERS,
    attempts=ATTEMPTS,
    transitions=TRANSITIONS,
    effects=EFFECTS,
    events=EVENTS,
)


@pytest.fixture
def written(engine: Engine) -> Engine:
    with engine.begin() as connection:
        batch.write(connection, CHANGES)
    return engine


def recorded(connection: Connection, table: type[Base], like: Sequence[Row]) -> list[dict[str, Any]]:
    """The rows of a table, as far as the columns of others go."""
    columns = [table.__table__.columns[name] for name in like[0]]
    return [row._asdict() for row in connection.execute(select(*columns).order_by(columns[0]))]


def test_every_value_is_in_its_column(written: Engine) -> None:
    with written.begin() as connection:
        assert recorded(connection, Course, COURSES) == COURSES
        assert recorded(connection, Exam, EXAMS) == EXAMS
        assert recorded(connection, Learner, LEARNERS) == LEARNERS
        assert recorded(connection, Attempt, ATTEMPTS) == ATTEMPTS
        assert recorded(connection, Transition, TRANSITIONS) == TRANSITIONS
        assert recorded(connection, Effect, EFFECTS) == EFFECTS
        assert recorded(connection, Event, EVENTS) == EVENTS


def test_so_it_is_of_an_outcome(engine: Engine) -> None:
    with engine.begin() as connection:
        inbox_id = connection.execute(
            text(
                "INSERT INTO inbox (source, command_id, type, fingerprint)"
                " VALUES ('/lms', 'command', 'type', decode(repeat('00', 32), 'hex')) RETURNING id"
            )
        ).scalar_one()
        outcome = {
            "inbox_id": inbox_id,
            "outcome": "rejected",
            "code": "unknown_exam",
            "detail": "no such exam",
            "handled_at": moment(5),
            "user_id": "42",
            "exam_id": "exam-1",
            "to_status": "verified",
            "attempt_code": "code-1",
            "external_id": "external-1",
        }
        batch.write(connection, Changes(outcomes=[outcome]))
        assert recorded(connection, HandledCommand, [outcome]) == [outcome]


def test_what_changes_replaces_what_was_written(written: Engine) -> None:
    courses = [{**COURSES[0], "name": "Chemistry", "provider": "local"}]
    # Each exam gets the details of the next one, and each attempt those of the next one.
    exams = [{**EXAMS[(at + 1) % 3], "exam_id": exam["exam_id"]} for at, exam in enumerate(EXAMS)]
    learners = [{**LEARNERS[0], "username": "al", "email": "al@example.org", "full_name": "Alan Turing"}]
    attempts = [
        {
            **ATTEMPTS[(at + 1) % 3],
            **{name: attempt[name] for name in ("id", "exam_id", "attempt_code")},
            "status": "verified",
            "started_at": moment(6),
            "completed_at": moment(7),
            "version": 8,
            "removed_at": moment(8),
        }
        for at, attempt in enumerate(ATTEMPTS)
    ]
    with written.begin() as connection:
        batch.write(connection, Changes(courses=courses, exams=exams, learners=learners, attempts=attempts))
        assert recorded(connection, Course, courses) == courses
        assert recorded(connection, Exam, exams) == exams
        assert recorded(connection, Learner, learners) == learners
        assert recorded(connection, Attempt, attempts) == attempts


def test_the_next_batch_reads_what_was_written(written: Engine) -> None:
    with written.begin() as connection:
        needs = Needs(user_ids={"42", "unknown"}, exam_ids={"exam-1"})
        found = batch.lock_and_read(connection, needs.user_ids, needs)
    assert found.learners == {"42"}
    assert found.providers == {"course": "remote"}
    assert sorted(found.exams, key=lambda exam: str(exam["exam_id"])) == [
        {name: exam[name] for name in found.exams[0]} for exam in EXAMS
    ]
    assert [
        {
            **{name: value for name, value in attempt.items() if name != "changed_at"},
            "id": UUID(attempt["id"]),
            **{
                name: datetime.fromisoformat(attempt[name])
                for name in ("started_at", "completed_at", "created_at")
            },
        }
        for attempt in sorted(found.attempts, key=lambda attempt: str(attempt["id"]))
    ] == [{name: attempt[name] for name in found.attempts[0].keys() - {"changed_at"}} for attempt in ATTEMPTS]
    assert {attempt["id"]: attempt["changed_at"] for attempt in found.attempts} == {
        str(UUID(int=1)): moment(4).isoformat(),
        str(UUID(int=2)): None,
        str(UUID(int=3)): None,
    }
    assert found.cascades == [
        {
            "id": str(EFFECTS[0]["id"]),
            "payload": EFFECTS[0]["payload"],
            "source": "/lms",
            "command_id": "command",
            "traceparent": TRACE,
            "tries": 0,
            "failure_told": None,
            "running_try": None,
            "attempt_code": "code-1",
        }
    ]
