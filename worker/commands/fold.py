"""Applies commands, one after the other, to a unit of work: the rules decide, it remembers. No I/O."""

from dataclasses import dataclass

from db.ids import Receipt
from db.inbox import Handled
from events.commands import (
    AttemptCreate,
    AttemptRemove,
    AttemptUpdateStatus,
    Command,
    CourseUpsert,
    ExamUpsert,
    LearnerUpsert,
)
from events.vocabulary import Outcome, OutcomeCode, Status
from worker.commands.unit_of_work import AttemptRecord, Cascade, Cause, UnitOfWork
from worker.kinds import EffectKind, Payload, credit_target
from worker.policies import Policies
from worker.rules.attempts import Exam
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

DETAILS = {
    OutcomeCode.ATTEMPT_NOT_FOUND: "the learner has no live attempt at this exam",
    OutcomeCode.EXAM_NOT_FOUND: "no such exam; send exam.upsert.v1 first",
    OutcomeCode.LEARNER_NOT_FOUND: "no such learner; send learner.upsert.v1 first",
    OutcomeCode.ATTEMPT_EXISTS: "the learner has a live attempt at this exam; remove it first",
    OutcomeCode.UNKNOWN_STATUS: "to_status is no status",
    OutcomeCode.LATE_TIMEOUT: "a verdict is protected from a late time-out",
}


@dataclass(frozen=True, slots=True)
class Fold:
    """Applies commands to a unit of work in the order in which they come."""

    unit_of_work: UnitOfWork
    policies: Policies
    instructor: bool

    def apply(self, command: Command, receipt: Receipt) -> Handled:
        """Apply one command. Cascades owed to the same learner in the same course go first, so that the
        answer does not depend on whether their task has run already.
        """
        cause = Cause(command.source, command.id, receipt.at, receipt.ids())
        match command.data:
            case CourseUpsert() as data:
                self.unit_of_work.upsert_course(data)
            case ExamUpsert() as data:
                self.unit_of_work.upsert_exam(data)
            case LearnerUpsert() as data:
                self.unit_of_work.upsert_learner(data)
            case AttemptCreate() as data:
                return self._create(data, cause)
            case AttemptUpdateStatus() as data:
                return self._update(data, cause)
            case AttemptRemove() as data:
                return self._remove(data, cause)
            case other:
                raise NotImplementedError(f"no handler for {other.type}")
        return Handled(Outcome.APPLIED)

    def _create(self, data: AttemptCreate, cause: Cause) -> Handled:
        exam = self._exam(data.user_id, data.exam_id, cause)
        decision = decide_create(
            exam,
            data.user_id in self.unit_of_work.learners,
            self.unit_of_work.attempt_of(data.user_id, data.exam_id),
        )
        if exam is not None and decision.outcome is Outcome.APPLIED:
            attempt = new_attempt(
                exam, taking_as_proctored=data.taking_as_proctored, external_id=data.external_id
            )
            self.unit_of_work.create(data.user_id, data.exam_id, attempt, cause)
        return _handled(decision.outcome, decision.code)

    def _update(self, data: AttemptUpdateStatus, cause: Cause) -> Handled:
        exam = self._exam(data.user_id, data.exam_id, cause)
        record = self.unit_of_work.record_of(data.user_id, data.exam_id)
        decision = decide_update(
            exam,
            record.attempt if record else None,
            data.to_status,
            self._policy(exam),
            cascade_effects=data.cascade_effects,
            if_missing=data.if_missing,
        )
        if exam is not None and record is not None:
            before = record.attempt.status
            self._carry_out(record, exam, decision, cause)
            if decision.code is OutcomeCode.ILLEGAL_TRANSITION:
                return Handled(decision.outcome, decision.code, f"{before} cannot become {data.to_status}")
        return _handled(decision.outcome, decision.code)

    def _remove(self, data: AttemptRemove, cause: Cause) -> Handled:
        exam = self._exam(data.user_id, data.exam_id, cause)
        record = self.unit_of_work.record_of(data.user_id, data.exam_id)
        removal = decide_removal(exam, record.attempt if record else None, instructor=self.instructor)
        if exam is not None and record is not None:
            payload = _payload(exam, data.user_id, requested_by=data.requested_by)
            if removal.remove_credit:
                self._owe_credit(EffectKind.REMOVE_CREDIT_STATUS, record, payload, cause)
            if removal.delete_student_attempt:
                self.unit_of_work.owe(EffectKind.DELETE_STUDENT_ATTEMPT, record, payload, cause)
            self.unit_of_work.remove(record, cause)
        return _handled(removal.outcome, removal.code)

    def _exam(self, user_id: str, exam_id: str, cause: Cause) -> Exam | None:
        """The exam of a command, after the cascades that must come before it."""
        exam = self.unit_of_work.exams.get(exam_id)
        if exam is not None:
            for cascade in self.unit_of_work.cascades.pop((user_id, exam.course_id), ()):
                self.decline_siblings(cascade, cause)
                self.unit_of_work.finish(cascade, cause.at)
        return exam

    def decline_siblings(self, cascade: Cascade, cause: Cause) -> None:
        """Carry out a cascade (docs/rules.md, "Cascade")."""
        payload = cascade.payload
        of_cascade = Cause(cascade.source, cascade.command_id, cause.at, cause.ids, cascade.id)
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
            self._carry_out(record, exam, decision, of_cascade, mail=False)

    def _carry_out(
        self, record: AttemptRecord, exam: Exam, decision: Decision, cause: Cause, *, mail: bool = True
    ) -> None:
        if decision.outcome is not Outcome.APPLIED:
            return
        self.unit_of_work.change(record, evolve(record.attempt, decision, cause.at), cause)
        if decision.credit is not None:
            of_credit = _payload(exam, record.user_id, status=decision.credit)
            self._owe_credit(EffectKind.SET_CREDIT_STATUS, record, of_credit, cause)
        if decision.cascade:
            self.unit_of_work.owe(EffectKind.CASCADE_DECLINE, record, _payload(exam, record.user_id), cause)
        if decision.email and mail:
            of_mail = _payload(exam, record.user_id, status=decision.status)
            self.unit_of_work.owe(EffectKind.SEND_STATUS_EMAIL, record, of_mail, cause)

    def _owe_credit(self, kind: EffectKind, record: AttemptRecord, payload: Payload, cause: Cause) -> None:
        target = credit_target(payload.user_id, payload.course_id, payload.content_id)
        self.unit_of_work.owe(kind, record, payload, cause, target)

    def _policy(self, exam: Exam | None) -> Policy:
        return self.policies.of(self.unit_of_work.providers.get(exam.course_id) if exam else None)


def _payload(
    exam: Exam, user_id: str, *, status: str | None = None, requested_by: str | None = None
) -> Payload:
    return Payload(
        exam_id=exam.exam_id,
        user_id=user_id,
        course_id=exam.course_id,
        content_id=exam.content_id,
        status=None if status is None else str(status),
        requested_by=requested_by,
    )


def _handled(outcome: Outcome, code: OutcomeCode | None) -> Handled:
    return Handled(outcome, code, None if code is None else DETAILS[code])
