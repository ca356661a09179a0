"""Builds the rows that each command writes, as Python values."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Self
from uuid import uuid4

from benchmarks.workload import EXAMS, FIRST_WAVE, SECOND_WAVE, Step, steps
from db.ids import new_receipt

COURSE_OF = {exam: course for course, exams in EXAMS.items() for exam in exams}
CREDIT_OF = {"submitted": "submitted", "verified": "satisfied", "declined": "failed"}
MAILED = ("submitted", "verified")

Row = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Attempt:
    """The row of an attempt after a command."""

    id: str
    exam_id: str
    user_id: str
    status: str = "created"
    proctored: bool = True
    started_at: str | None = None
    completed_at: str | None = None
    credit_owed: bool = False
    version: int = 1

    def moved(self, status: str, at: str) -> Self:
        """Return the attempt after a transition to `status` at the time `at`."""
        return type(self)(
            self.id,
            self.exam_id,
            self.user_id,
            status,
            self.proctored and status != "declined",
            at if status == "started" else self.started_at,
            at if status == "submitted" else self.completed_at,
            self.credit_owed or status in CREDIT_OF,
            self.version + 1,
        )

    def changing(self) -> Row:
        """Return the values of an update, and the id of the row."""
        return (
            self.status,
            self.proctored,
            self.started_at,
            self.completed_at,
            self.credit_owed,
            self.version,
            self.id,
        )


@dataclass(frozen=True, slots=True)
class Written:
    """The rows of one command."""

    inbox: Row
    attempt: Attempt
    created_at: str | None
    """The attempt's creation time, or None when the command does not create it."""
    transition: Row
    effects: list[Row]


@dataclass(frozen=True, slots=True)
class Batch:
    """The rows of one commit, by statement, in the order in which the statements run."""

    rows: dict[str, list[Row]]

    @classmethod
    def of(cls, commands: Sequence[Written]) -> Self:
        """Combine commands to a batch. It has only the last state of each attempt, but every transition."""
        last = {command.attempt.id: command.attempt for command in commands}
        created = {c.attempt.id: c.created_at for c in commands if c.created_at is not None}
        rows = {
            "inbox": [command.inbox for command in commands],
            "created": [
                (a.exam_id, a.user_id, created[i], *a.changing()) for i, a in last.items() if i in created
            ],
            "changed": [attempt.changing() for i, attempt in last.items() if i not in created],
            "transitions": [command.transition for command in commands],
            "effects": [effect for command in commands for effect in command.effects],
        }
        return cls({name: of_table for name, of_table in rows.items() if of_table})


def written(learners: Iterable[int]) -> Iterator[Written]:
    """Yield the rows of every command of these learners, in order."""
    learners = list(learners)
    attempts: dict[tuple[int, str], Attempt] = {}
    for wave in (FIRST_WAVE, SECOND_WAVE):
        for step in steps(learners, wave):
            before = attempts.get((step.learner, step.exam))
            command = _written(step, before)
            attempts[step.learner, step.exam] = command.attempt
            yield command


def _written(step: Step, before: Attempt | None) -> Written:
    moment, command_id, user_id = new_receipt(), str(uuid4()), str(step.learner)
    at, ids = moment.at.isoformat(), (str(one) for one in moment.ids())
    if before is None or step.to_status is None:
        attempt, kind, created_at = Attempt(next(ids), step.exam, user_id), "create", at
    else:
        attempt, kind, created_at = before.moved(step.to_status, at), "update-status", None
    command_type = f"exam.attempt.{kind}.v1"
    fingerprint = hashlib.sha256(f"{command_type} {step}".encode()).hexdigest()
    return Written(
        (command_id, command_type, rf"\x{fingerprint}", at),
        attempt,
        created_at,
        (next(ids), attempt.id, attempt.version, before and before.status, attempt.status, at, command_id),
        [(next(ids), *effect, command_id) for effect in _effects(attempt)] if before else [],
    )


def _effects(attempt: Attempt) -> Iterator[Row]:
    course, content = COURSE_OF[attempt.exam_id], f"content-{attempt.exam_id}"

    def effect(kind: str, status: str | None, target: str | None = None) -> Row:
        payload = {
            "exam_id": attempt.exam_id,
            "user_id": attempt.user_id,
            "course_id": course,
            "content_id": content,
            "status": status,
            "requested_by": None,
        }
        return kind, attempt.id, attempt.user_id, target, json.dumps(payload)

    if attempt.status in CREDIT_OF:
        target = f"credit:{attempt.user_id}/{course}/{content}"
        yield effect("set_credit_status", CREDIT_OF[attempt.status], target)
    if attempt.status == "declined":
        yield effect("cascade_decline", None)
    if attempt.status in MAILED:
        yield effect("send_status_email", attempt.status)
