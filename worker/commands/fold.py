"""Applies commands to a unit of work: the rules decide, the unit of work remembers. No I/O."""

from dataclasses import dataclass, replace
from datetime import datetime

from db.inbox import Handled
from events.commands import (
    AttemptCreate,
    AttemptData,
    AttemptRemove,
    AttemptUpdateStatus,
    CourseUpsert,
    ExamUpsert,
    LearnerUpsert,
)
from events.vocabulary import Outcome, OutcomeCode, Status
from worker.commands.records import AttemptRecord, Cause
from worker.commands.unit_of_work import Cascade, UnitOfWork
from worker.kinds import owed_by, owed_by_removal
from worker.policies import Policies
from worker.rules.cascade import siblings_to_decline
from worker.rules.decisions import (
    Decision,
    decide,
    decide_create,
    decide_removal,
    decide_update,
    evolve,
    new_attempt,
)
from worker.rules.policy import Policy
from worker.rules.values import Exam, Precondition


@dataclass(frozen=True, slots=True)
class Fold:
    """Applies commands to a unit of work, one method for each command type.

    `worker.commands.command_types` says which. Commands are applied in the order in which they arrived.
    """

    unit_of_work: UnitOfWork
    policies: Policies
    instructor: bool

    def upsert_course(self, data: CourseUpsert, cause: Cause) -> Handled:
        """Keep a course as the LMS describes it."""
        return _described(self.unit_of_work.upsert_course(data, cause.at))

    def upsert_exam(self, data: ExamUpsert, cause: Cause) -> Handled:
        """Keep an exam as the LMS describes it."""
        return _described(self.unit_of_work.upsert_exam(data, cause.at))

    def upsert_learner(self, data: LearnerUpsert, cause: Cause) -> Handled:
        """Keep a learner as the LMS describes them."""
        return _described(self.unit_of_work.upsert_learner(data, cause.at))

    def create(self, data: AttemptCreate, cause: Cause) -> Handled:
        """Start an attempt."""
        exam = self._exam(data.user_id, data.exam_id, cause)
        decision = decide_create(
            exam,
            data.user_id in self.unit_of_work.learners,
            self.unit_of_work.attempt_of(data.user_id, data.exam_id),
            code_taken=data.attempt_code in self.unit_of_work.attempt_codes,
        )
        if exam is not None and decision.outcome is Outcome.APPLIED:
            attempt = new_attempt(
                exam, taking_as_proctored=data.taking_as_proctored, external_id=data.external_id
            )
            self.unit_of_work.create(data.user_id, data.exam_id, attempt, cause, data.attempt_code)
        attempt_code = self._code_of(data.user_id, data.exam_id)
        return _handled(decision.outcome, decision.code, attempt_code)

    def update(self, data: AttemptUpdateStatus, cause: Cause) -> Handled:
        """Change the status of an attempt, with everything that follows."""
        exam = self._exam(data.user_id, data.exam_id, cause)
        record = self.unit_of_work.record_of(data.user_id, data.exam_id)
        decision = decide_update(
            exam,
            record.attempt if record else None,
            data.to_status,
            self._policy(exam),
            cascade_effects=data.cascade_effects,
            precondition=_precondition(data),
        )
        if exam is not None and record is not None:
            self._carry_out(record, exam, decision, cause)
        attempt_code = self._code_of(data.user_id, data.exam_id)
        return _handled(
            decision.outcome, decision.code, attempt_code, before=decision.status, to_status=data.to_status
        )

    def remove(self, data: AttemptRemove, cause: Cause) -> Handled:
        """Remove an attempt, with everything that follows."""
        exam = self._exam(data.user_id, data.exam_id, cause)
        record = self.unit_of_work.record_of(data.user_id, data.exam_id)
        removal = decide_removal(
            exam,
            record.attempt if record else None,
            instructor=self.instructor,
            credit=self.policies.credit,
            precondition=_precondition(data),
        )
        attempt_code = self._code_of(data.user_id, data.exam_id)
        if exam is not None and record is not None and removal.outcome is Outcome.APPLIED:
            for payload in owed_by_removal(removal, exam, data.user_id, data.requested_by):
                self.unit_of_work.owe(record, payload, cause)
            self.unit_of_work.remove(record, cause, data.requested_by)
        return _handled(removal.outcome, removal.code, attempt_code, before=removal.status)

    def _exam(self, user_id: str, exam_id: str, cause: Cause) -> Exam | None:
        """Return the exam of a command, and carry out the cascades that must come before it.

        These are owed to the same learner in the same course. So the answer to the command does not depend on
        whether their tasks have run already.
        """
        exam = self.unit_of_work.exams.get(exam_id)
        if exam is not None:
            for cascade in self.unit_of_work.cascades.pop((user_id, exam.course_id), ()):
                self.decline_siblings(cascade, cause)
                self.unit_of_work.finish(cascade, cause)
        return exam

    def decline_siblings(self, cascade: Cascade, cause: Cause) -> None:
        """Carry out a cascade (docs/rules.md, "Cascade").

        The siblings change when the attempt that started the cascade did, whoever carries it out and when.
        """
        payload = cascade.payload
        at = cause.handled_at if payload.at is None else datetime.fromisoformat(payload.at)
        of_cascade = Cause(
            cascade.source,
            cascade.command_id,
            at,
            cause.handled_at,
            cause.ids,
            effect_id=cascade.id,
            cascaded_from=cascade.attempt_code,
            traceparent=cascade.traceparent,
        )
        siblings = siblings_to_decline(
            payload.course_id,
            payload.content_id,
            self.unit_of_work.exams.values(),
            self.unit_of_work.attempts_by_exam(payload.user_id),
        )
        for exam in siblings:
            record = self.unit_of_work.record_of(payload.user_id, exam.exam_id)
            if record is None:
                record = self.unit_of_work.create(
                    payload.user_id, exam.exam_id, new_attempt(exam), of_cascade
                )
            decision = decide(record.attempt, Status.DECLINED, self._policy(exam), cascade_effects=False)
            self._carry_out(record, exam, replace(decision, email=False), of_cascade)

    def _carry_out(self, record: AttemptRecord, exam: Exam, decision: Decision, cause: Cause) -> None:
        if decision.outcome is not Outcome.APPLIED:
            return
        at = record.moment(cause)
        after = evolve(record.attempt, decision, at, (exam.course_id, exam.content_id))
        self.unit_of_work.change(record, after, cause)
        for payload in owed_by(decision, exam, record.user_id, at):
            self.unit_of_work.owe(record, payload, cause)

    def _code_of(self, user_id: str, exam_id: str) -> str | None:
        attempt = self.unit_of_work.attempt_of(user_id, exam_id)
        return None if attempt is None else attempt.code

    def _policy(self, exam: Exam | None) -> Policy:
        return self.policies.of(self.unit_of_work.providers.get(exam.course_id) if exam else None)


def _precondition(data: AttemptData) -> Precondition:
    return Precondition(data.attempt_code, data.external_id, data.from_statuses, data.if_missing)


def _described(is_newest: bool) -> Handled:
    if is_newest:
        return _handled(Outcome.APPLIED, None, None)
    return _handled(Outcome.IGNORED, OutcomeCode.OVERTAKEN, None)


def _handled(
    outcome: Outcome, code: OutcomeCode | None, attempt_code: str | None, **values: str | None
) -> Handled:
    return Handled(outcome, code, None if code is None else code.detail.format(**values), attempt_code)
