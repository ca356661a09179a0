"""A batch's working set: what it loaded, what it changed, and how that is written back."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection

from db import batch
from db.batch import Row
from db.models import Attempt as AttemptTable
from db.models import (
    Base,
    Course,
    Effect,
    EffectState,
    Exam,
    HandledCommand,
    Learner,
    Transition,
    TryResult,
)
from events.commands import CommandData, CourseUpsert, ExamUpsert, LearnerUpsert
from events.vocabulary import Status
from worker.kind_entry import Payload
from worker.kinds import CascadeDecline, EffectKind, kind_of
from worker.rules.attempts import Attempt
from worker.rules.attempts import Exam as ExamRules


@dataclass(frozen=True, slots=True)
class Cause:
    """What makes a change: the command, the moment, ids for what follows, and the cascade if it is one."""

    source: str
    command_id: str
    at: datetime
    ids: Iterator[UUID]
    effect_id: UUID | None = None


@dataclass(slots=True)
class AttemptRecord:
    """An attempt and where it is stored."""

    id: UUID
    exam_id: str
    user_id: str
    attempt: Attempt
    version: int
    created_at: datetime
    removed_at: datetime | None = None

    def row(self) -> dict[str, Any]:
        """The attempt as a row of its table."""
        return {
            "id": self.id,
            "exam_id": self.exam_id,
            "user_id": self.user_id,
            "status": self.attempt.status,
            "taking_as_proctored": self.attempt.taking_as_proctored,
            "is_sample_attempt": self.attempt.is_sample_attempt,
            "external_id": self.attempt.external_id,
            "started_at": self.attempt.started_at,
            "completed_at": self.attempt.completed_at,
            "credit_owed": self.attempt.credit_owed,
            "version": self.version,
            "created_at": self.created_at,
            "removed_at": self.removed_at,
        }


@dataclass(slots=True)
class Cascade:
    """A cascade that is owed. `new` is its row while it is not in the database yet; `running` is the number of the
    try of the worker that has it.
    """

    id: UUID
    payload: CascadeDecline
    source: str
    command_id: str
    new: dict[str, Any] | None = None
    running: int | None = None


@dataclass(slots=True)
class UnitOfWork:
    """Everything that a batch may look at, and everything that it will write."""

    learners: set[str] = field(default_factory=set)
    exams: dict[str, ExamRules] = field(default_factory=dict)
    providers: dict[str, str | None] = field(default_factory=dict)
    attempts: dict[str, dict[str, AttemptRecord]] = field(default_factory=dict)
    """Live attempts, by user and exam."""
    cascades: dict[tuple[str, str], list[Cascade]] = field(default_factory=dict)
    """Cascades owed, oldest first, by (user, course)."""

    _upserts: dict[type[Base], dict[str, CommandData]] = field(
        default_factory=lambda: {Course: {}, Exam: {}, Learner: {}}
    )
    _changed: dict[UUID, AttemptRecord] = field(default_factory=dict)
    _transitions: list[dict[str, Any]] = field(default_factory=list)
    _effects: list[dict[str, Any]] = field(default_factory=list)
    _finished: list[UUID] = field(default_factory=list)

    def load(
        self,
        connection: Connection,
        user_ids: Collection[str],
        exam_ids: Collection[str],
        course_ids: Collection[str],
    ) -> None:
        """Read what belongs to learners who are locked. The lock comes first, the reading after it."""
        found = batch.read(connection, user_ids, exam_ids, course_ids)
        if not found.learners <= self.learners:
            # Somebody has added one since the locks were taken.
            self.learners = batch.lock_learners(connection, user_ids)
            found = batch.read(connection, user_ids, exam_ids, course_ids)
        self.exams = {row[0]: ExamRules(*row) for row in found.exams}
        self.providers = dict(found.providers)
        for row in found.attempts:
            record = _record(row)
            self.attempts.setdefault(record.user_id, {})[record.exam_id] = record
        for cascade_id, stored, source, command_id, running in found.cascades:
            payload = EffectKind.CASCADE_DECLINE.entry.read(stored)
            self._owe(Cascade(UUID(cascade_id), payload, source, command_id, running=running))

    # --- reading -------------------------------------------------------------------------------------

    def record_of(self, user_id: str, exam_id: str) -> AttemptRecord | None:
        """The record of the live attempt, or None."""
        return self.attempts.get(user_id, {}).get(exam_id)

    def attempt_of(self, user_id: str, exam_id: str) -> Attempt | None:
        """The live attempt, or None."""
        record = self.record_of(user_id, exam_id)
        return record.attempt if record else None

    def attempts_by_exam(self, user_id: str) -> dict[str, Attempt]:
        """A learner's live attempts."""
        return {exam_id: record.attempt for exam_id, record in self.attempts.get(user_id, {}).items()}

    def owed(self) -> list[Cascade]:
        """Every cascade that is owed; those of one learner in one course oldest first."""
        return [cascade for cascades in self.cascades.values() for cascade in cascades]

    # --- changing ------------------------------------------------------------------------------------

    def upsert_course(self, data: CourseUpsert) -> None:
        """A course is as the LMS says."""
        self._upserts[Course][data.course_id] = data
        self.providers[data.course_id] = data.provider

    def upsert_exam(self, data: ExamUpsert) -> None:
        """An exam is as the LMS says."""
        self._upserts[Exam][data.exam_id] = data
        self.exams[data.exam_id] = ExamRules(
            data.exam_id,
            data.course_id,
            data.content_id,
            data.is_proctored,
            data.is_practice_exam,
            data.is_active,
        )

    def upsert_learner(self, data: LearnerUpsert) -> None:
        """A learner is as the LMS says."""
        self._upserts[Learner][data.user_id] = data
        self.learners.add(data.user_id)

    def create(self, user_id: str, exam_id: str, attempt: Attempt, cause: Cause) -> AttemptRecord:
        """Start an attempt and its history."""
        record = AttemptRecord(next(cause.ids), exam_id, user_id, attempt, 0, cause.at)
        self.attempts.setdefault(user_id, {})[exam_id] = record
        self._move(record, None, attempt, cause)
        return record

    def change(self, record: AttemptRecord, attempt: Attempt, cause: Cause) -> None:
        """Bring an attempt to what the rules made of it, with a line in its history."""
        self._move(record, record.attempt.status, attempt, cause)

    def remove(self, record: AttemptRecord, cause: Cause) -> None:
        """Keep an attempt as removed."""
        record.removed_at = cause.at
        self._changed[record.id] = record
        del self.attempts[record.user_id][record.exam_id]

    def owe(self, record: AttemptRecord, payload: Payload, cause: Cause) -> None:
        """Owe an effect, whose kind is that of its payload."""
        effect_id, kind = next(cause.ids), kind_of(payload)
        row: dict[str, Any] = {
            "id": effect_id,
            "kind": kind,
            "state": EffectState.PENDING,
            "attempt_id": record.id,
            "user_id": payload.user_id,
            "target": kind.entry.target.of(payload),
            "payload": payload,
            "source": cause.source,
            "command_id": cause.command_id,
            "done_at": None,
        }
        self._effects.append(row)
        if isinstance(payload, CascadeDecline):
            self._owe(Cascade(effect_id, payload, cause.source, cause.command_id, new=row))

    def finish(self, cascade: Cascade, at: datetime) -> None:
        """A cascade has been carried out."""
        if cascade.new is None:
            self._finished.append(cascade.id)
        else:
            cascade.new.update(state=EffectState.DONE, done_at=at)

    def _owe(self, cascade: Cascade) -> None:
        key = (cascade.payload.user_id, cascade.payload.course_id)
        self.cascades.setdefault(key, []).append(cascade)

    def _move(self, record: AttemptRecord, before: Status | None, attempt: Attempt, cause: Cause) -> None:
        record.attempt = attempt
        record.version += 1
        self._changed[record.id] = record
        self._transitions.append(
            {
                "id": next(cause.ids),
                "attempt_id": record.id,
                "version": record.version,
                "from_status": before,
                "to_status": attempt.status,
                "at": cause.at,
                "source": cause.source,
                "command_id": cause.command_id,
                "effect_id": cause.effect_id,
            }
        )

    # --- writing -------------------------------------------------------------------------------------

    def write(
        self,
        connection: Connection,
        outcomes: Sequence[Row] = (),
        result: TryResult = TryResult.FOLDED,
    ) -> None:
        """Write everything, sorted where two shards could deadlock.

        Parameters:
            outcomes: of the commands, as rows of their table.
            result: of the tries of cascades that workers had.
        """
        rows: dict[type[Base], Collection[Row]] = {
            table: [dict(upserts[key]) for key in sorted(upserts)] for table, upserts in self._upserts.items()
        }
        rows[AttemptTable] = [record.row() for record in self._changed.values()]
        rows[Transition] = self._transitions
        rows[Effect] = self._effects
        rows[HandledCommand] = outcomes
        batch.write(connection, rows, self._finished, result)


def _record(row: Sequence[Any]) -> AttemptRecord:
    (
        attempt_id,
        exam_id,
        user_id,
        status,
        proctored,
        sample,
        external_id,
        started,
        completed,
        owed,
        version,
        at,
    ) = row
    attempt = Attempt(
        Status(status), proctored, sample, external_id, _moment(started), _moment(completed), owed
    )
    return AttemptRecord(UUID(attempt_id), exam_id, user_id, attempt, version, datetime.fromisoformat(at))


def _moment(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)
