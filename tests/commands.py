"""Commands for tests, in few words."""

from itertools import count
from typing import Any

from db.ids import Stamp, stamp
from events.commands import (
    AttemptCreate,
    AttemptRemove,
    AttemptUpdateStatus,
    Command,
    CommandData,
    CourseUpsert,
    ExamUpsert,
    LearnerUpsert,
)
from events.envelope import render
from worker.commands.handler import Received

_numbers = count(1)

COURSE = "course-1"


def command(data: CommandData, command_id: str | None = None) -> Command:
    """A command with an id of its own."""
    return Command("/tests", command_id or f"c{next(_numbers)}", data)


def stamped(data: CommandData, command_id: str | None = None) -> tuple[Command, Stamp]:
    """A command as the handler applies it."""
    return command(data, command_id), stamp()


def received(data: CommandData, command_id: str | None = None) -> Received:
    """A command as it comes out of a message."""
    one = command(data, command_id)
    return Received(one, stamp(), {}, render(one), one.fingerprint())


def course(provider: str | None = None) -> CourseUpsert:
    return CourseUpsert(course_id=COURSE, name="Physics", provider=provider)


def exam(exam_id: str, **other: Any) -> ExamUpsert:
    fields = {
        "course_id": COURSE,
        "content_id": f"content-{exam_id}",
        "exam_name": f"Exam {exam_id}",
        **other,
    }
    return ExamUpsert(exam_id=exam_id, **fields)


def learner(user_id: str = "42") -> LearnerUpsert:
    return LearnerUpsert(
        user_id=user_id, username=f"user-{user_id}", email=f"u{user_id}@example.org", full_name="Ada Lovelace"
    )


def create(exam_id: str, user_id: str = "42", **other: Any) -> AttemptCreate:
    return AttemptCreate(exam_id=exam_id, user_id=user_id, **other)


def update(exam_id: str, to_status: str | None, user_id: str = "42", **other: Any) -> AttemptUpdateStatus:
    return AttemptUpdateStatus(exam_id=exam_id, user_id=user_id, to_status=to_status, **other)


def remove(exam_id: str, user_id: str = "42", **other: Any) -> AttemptRemove:
    return AttemptRemove(exam_id=exam_id, user_id=user_id, **other)
