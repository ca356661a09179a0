"""The unit of work of a batch: what it loaded, what it changed, and how that is written back."""

from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from datetime import datetime
from typing import Any, Self
from uuid import UUID

from sqlalchemy import Connection

from db import batch, round_trips, totals
from db.batch import Changes, Found
from db.recordset import Row
from db.states import EffectState, TryResult
from events.commands import CourseUpsert, ExamUpsert, LearnerUpsert
from events.vocabulary import Status
from worker import tracing
from worker.commands.descriptions import Descriptions
from worker.commands.records import AttemptRecord, Cause
from worker.commands.telling import Telling
from worker.kind_entry import Payload, UnreadablePayloadError
from worker.kinds import CascadeDecline, EffectKind, kind_of
from worker.logs import get_logger
from worker.rules.values import Attempt, Exam
from worker.tracing import Kind, Span

logger = get_logger(__name__)


@dataclass(slots=True)
class Cascade:
    """A cascade that is owed."""

    id: UUID
    payload: CascadeDecline
    source: str
    command_id: str
    attempt_code: str | None
    """Of the attempt that started it."""
    traceparent: str | None = None
    failure_told: bool = False
    """Whether an event has told that it failed."""
    tries: int = 0
    new: dict[str, Any] | None = None
    """Its row while it is not in the database yet."""
    running: int | None = None
    """The number of the try of the worker that has claimed it."""


@dataclass(slots=True)
class UnitOfWork:
    """Everything that a batch may read, and everything that it will write."""

    learners: set[str] = field(default_factory=set)
    exams: dict[str, Exam] = field(default_factory=dict)
    providers: dict[str, str | None] = field(default_factory=dict)
    attempts: dict[str, dict[str, AttemptRecord]] = field(default_factory=dict)
    """The live attempts, by user and exam."""
    cascades: dict[tuple[str, str], list[Cascade]] = field(default_factory=dict)
    """The cascades that are owed, oldest first, by (user, course)."""

    attempt_codes: set[str] = field(default_factory=set)
    """Those of the codes that the batch asks for that attempts have already."""
    requesters: set[str] = field(default_factory=set)
    """Those who ask for a removal and are known."""
    telling: Telling = field(default_factory=Telling)

    _courses: Descriptions = field(default_factory=lambda: Descriptions("course_id"))
    _exams: Descriptions = field(default_factory=lambda: Descriptions("exam_id"))
    _learners: Descriptions = field(default_factory=lambda: Descriptions("user_id"))
    _changed: dict[UUID, AttemptRecord] = field(default_factory=dict)
    _transitions: list[dict[str, Any]] = field(default_factory=list)
    _effects: list[dict[str, Any]] = field(default_factory=list)
    _finished: list[Cascade] = field(default_factory=list)
    _spans: list[Span] = field(default_factory=list)
    """Of the effects that are new. What is not written was no effect, so its span never ends."""

    @classmethod
    def on(cls, found: Found) -> Self:
        """Return a unit of work on what was read."""
        self = cls(
            learners=found.learners,
            exams={row["exam_id"]: Exam(**row) for row in found.exams},
            providers=dict(found.providers),
            attempt_codes=found.attempt_codes,
            requesters=found.requesters,
        )
        for row in found.attempts:
            record = _record(row)
            self.attempts.setdefault(record.user_id, {})[record.exam_id] = record
        for row in found.cascades:
            # The task of a cascade that cannot be read says so. It may not hold up the learner's commands, or the
            # cascades that can be read.
            with suppress(UnreadablePayloadError):
                self._remember_cascade(_cascade(row))
        self.telling.is_on = found.has_subscribers
        self._courses.load(found.described["courses"])
        self._exams.load(found.described["exams"])
        self._learners.load(found.described["learners"])
        return self

    # --- reading -------------------------------------------------------------------------------------

    def record_of(self, user_id: str, exam_id: str) -> AttemptRecord | None:
        """The record of the live attempt, or None."""
        return self.attempts.get(user_id, {}).get(exam_id)

    def attempt_of(self, user_id: str, exam_id: str) -> Attempt | None:
        """The live attempt, or None."""
        record = self.record_of(user_id, exam_id)
        return record.attempt if record else None

    def attempts_by_exam(self, user_id: str) -> dict[str, Attempt]:
        """A learner's live attempts, by exam."""
        return {exam_id: record.attempt for exam_id, record in self.attempts.get(user_id, {}).items()}

    def owed(self) -> list[Cascade]:
        """Every cascade that is owed. Those of one learner in one course come oldest first."""
        return [cascade for cascades in self.cascades.values() for cascade in cascades]

    # --- changing ------------------------------------------------------------------------------------

    def upsert_course(self, data: CourseUpsert, at: datetime) -> bool:
        """Record a course as the LMS describes it. Return False when a newer description was applied before."""
        row = self._courses.describe(data, at)
        if row is not None:
            self.providers[data.course_id] = row["provider"]
        return row is not None

    def upsert_exam(self, data: ExamUpsert, at: datetime) -> bool:
        """Record an exam as the LMS describes it. Return False when a newer description was applied before."""
        row = self._exams.describe(data, at)
        if row is not None:
            self.exams[data.exam_id] = Exam(**{one.name: row[one.name] for one in fields(Exam)})
        return row is not None

    def upsert_learner(self, data: LearnerUpsert, at: datetime) -> bool:
        """Record a learner as the LMS describes them. Return False when a newer description was applied before."""
        row = self._learners.describe(data, at)
        if row is not None:
            self.learners.add(data.user_id)
            if row.get("erased_at") is not None:
                logger.warning("an erased learner is described again", user=data.user_id)
        return row is not None

    def create(
        self, user_id: str, exam_id: str, attempt: Attempt, cause: Cause, attempt_code: str | None = None
    ) -> AttemptRecord:
        """Start an attempt and its history.

        Parameters:
            attempt_code: the code that the LMS has chosen. Without one it is the id's text.
        """
        attempt_id = next(cause.ids)
        code = attempt_code or str(attempt_id)
        record = AttemptRecord(
            id=attempt_id,
            exam_id=exam_id,
            user_id=user_id,
            attempt_code=attempt_code,
            attempt=replace(attempt, code=code),
            version=0,
            created_at=cause.at,
            changed_at=cause.at,
        )
        self.attempt_codes.add(code)
        self.attempts.setdefault(user_id, {})[exam_id] = record
        self._move(record, None, record.attempt, cause)
        return record

    def change(self, record: AttemptRecord, attempt: Attempt, cause: Cause) -> None:
        """Record what the rules made of an attempt, with a transition in its history."""
        self._move(record, record.attempt.status, attempt, cause)

    def remove(self, record: AttemptRecord, cause: Cause, requested_by: str | None) -> None:
        """Mark an attempt as removed. Its row stays."""
        record.removed_at = record.moment(cause)
        self._changed[record.id] = record
        known = requested_by if requested_by in self.requesters | self.learners else None
        self.telling.removed(record, self.exams[record.exam_id], cause, known)
        del self.attempts[record.user_id][record.exam_id]

    def owe(self, record: AttemptRecord, payload: Payload, cause: Cause) -> None:
        """Record that an effect is owed. Its kind is that of its payload."""
        effect_id, kind = next(cause.ids), kind_of(payload)
        span = _begin_effect(effect_id, kind, record, cause)
        self._spans.append(span)
        row: dict[str, Any] = {
            "id": effect_id,
            "kind": kind,
            "state": EffectState.PENDING,
            "attempt_id": record.id,
            "user_id": payload.user_id,
            "target": kind.entry.target.of(payload),
            "order_key": kind.entry.target.order_key(payload, record.id),
            "payload": payload,
            "source": cause.source,
            "command_id": cause.command_id,
            "traceparent": span.traceparent,
            "done_at": None,
        }
        self._effects.append(row)
        if isinstance(payload, CascadeDecline):
            self._remember_cascade(
                Cascade(
                    id=effect_id,
                    payload=payload,
                    source=cause.source,
                    command_id=cause.command_id,
                    attempt_code=record.attempt.code,
                    traceparent=span.traceparent,
                    new=row,
                )
            )

    def finish(self, cascade: Cascade, cause: Cause) -> None:
        """Mark a cascade as done."""
        if cascade.new is None:
            self._finished.append(cascade)
        else:
            cascade.new.update(state=EffectState.DONE, done_at=cause.handled_at)
        if cascade.failure_told:
            self.telling.recovered(
                cascade.id, cascade.tries, cascade.attempt_code, cascade.payload.user_id, cause
            )

    def _remember_cascade(self, cascade: Cascade) -> None:
        key = (cascade.payload.user_id, cascade.payload.course_id)
        self.cascades.setdefault(key, []).append(cascade)

    def _move(self, record: AttemptRecord, before: Status | None, attempt: Attempt, cause: Cause) -> None:
        record.attempt = attempt
        record.version += 1
        record.changed_at = record.moment(cause)
        self._changed[record.id] = record
        self._transitions.append(
            {
                "id": next(cause.ids),
                "attempt_id": record.id,
                "version": record.version,
                "from_status": before,
                "to_status": attempt.status,
                "at": record.changed_at,
                "recorded_at": cause.handled_at,
                "source": cause.source,
                "command_id": cause.command_id,
                "effect_id": cause.effect_id,
            }
        )
        exam = self.exams[record.exam_id]
        if before is None:
            self.telling.created(record, exam, cause)
        else:
            self.telling.status_changed(record, exam, cause, before)

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
        changes = Changes(
            courses=self._courses.changed(),
            exams=self._exams.changed(),
            learners=self._learners.changed(),
            attempts=[record.row() for record in self._changed.values()],
            transitions=self._transitions,
            effects=self._effects,
            outcomes=outcomes,
            events=self.telling.rows,
            finished=[cascade.id for cascade in self._finished],
            counts=self._counts(outcomes, result),
        )
        batch.write(connection, changes, result)
        if tracing.is_on():
            round_trips.flush(connection)
        for span in self._spans:
            span.end()

    def _counts(self, outcomes: Sequence[Row], result: TryResult) -> Counter[totals.Key]:
        finished = [row["kind"] for row in self._effects if row["state"] == EffectState.DONE]
        finished += [EffectKind.CASCADE_DECLINE] * len(self._finished)
        interrupted = sum(cascade.running is not None for cascade in self._finished)
        counts: Counter[totals.Key] = Counter(
            (totals.COMMANDS, row["outcome"], row["code"] or "") for row in outcomes
        )
        counts.update((totals.EFFECTS, kind, EffectState.DONE) for kind in finished)
        if interrupted:
            counts[totals.TRIES, EffectKind.CASCADE_DECLINE, result] += interrupted
        return counts


def _begin_effect(effect_id: UUID, kind: EffectKind, record: AttemptRecord, cause: Cause) -> Span:
    if not tracing.is_on():
        return Span(cause.traceparent)
    queue = kind.entry.queue
    attributes = {
        "messaging.operation.name": "owe",
        "messaging.operation.type": "create",
        "messaging.destination.name": queue,
        "messaging.message.id": str(effect_id),
        "invigilator.kind": kind,
        "invigilator.attempt": record.attempt.code,
    }
    return tracing.begin(f"owe {queue}", Kind.PRODUCER, cause.traceparent, attributes)


def _record(row: Row) -> AttemptRecord:
    external_ids = [*(row["external_ids"] or ()), row["external_id"]]
    return AttemptRecord(
        id=UUID(row["id"]),
        exam_id=row["exam_id"],
        user_id=row["user_id"],
        attempt_code=row["attempt_code"],
        attempt=Attempt(
            status=Status(row["status"]),
            taking_as_proctored=row["taking_as_proctored"],
            is_sample_attempt=row["is_sample_attempt"],
            external_id=row["external_id"],
            started_at=_moment(row["started_at"]),
            completed_at=_moment(row["completed_at"]),
            credit_owed=row["credit_owed"],
            code=row["attempt_code"] or row["id"],
            external_ids=frozenset(one for one in external_ids if one is not None),
            credit_told=frozenset(
                (course_id, content_id) for course_id, content_id in row["credit_told"] or ()
            ),
        ),
        version=row["version"],
        created_at=datetime.fromisoformat(row["created_at"]),
        changed_at=datetime.fromisoformat(row["changed_at"]),
    )


def _moment(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)


def _cascade(row: Row) -> Cascade:
    return Cascade(
        id=UUID(row["id"]),
        payload=EffectKind.CASCADE_DECLINE.entry.read(row["payload"]),
        source=row["source"],
        command_id=row["command_id"],
        attempt_code=row["attempt_code"],
        traceparent=row["traceparent"],
        failure_told=bool(row["failure_told"]),
        tries=row["tries"],
        running=row["running_try"],
    )
