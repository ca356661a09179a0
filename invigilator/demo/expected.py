"""The oracle: computes in memory, one command after the other, what a session must lead to.

It shares the rules (`worker.rules`), the policies and the mail templates with the system. It has no batches,
queues, tables or effects of its own to get wrong.
"""

from collections import Counter, defaultdict
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from events.commands import (
    AttemptCreate,
    AttemptData,
    AttemptRemove,
    AttemptUpdateStatus,
    Command,
    CourseUpsert,
    ExamUpsert,
    Fingerprint,
    LearnerUpsert,
)
from events.vocabulary import Outcome, OutcomeCode, QuarantineCode, Status
from invigilator.demo.malformed import Malformed
from invigilator.demo.session import Message, Session
from invigilator.demo.snapshot import REMOVED, AttemptView, Snapshot, outcome_text
from worker.kinds import EffectKind
from worker.lms.mail_templates import MailFacts, MailTemplates
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
from worker.rules.values import Attempt, Exam, Precondition

NOW = datetime(2000, 1, 1, tzinfo=UTC)  # any time will do: only whether a time is set is compared


def expect(
    session: Session, policies: Policies, *, instructor: bool, mail_templates: MailTemplates | None = None
) -> Snapshot:
    """Return the snapshot that a session must lead to.

    Parameters:
        session: the messages, in the order in which they are published.
        policies: the policies of the system.
        instructor: whether the system has an instructor service.
        mail_templates: those of the system; the ones of this release when left out.
    """
    oracle = _Oracle(policies, instructor, mail_templates or MailTemplates())
    for message in session.messages:
        oracle.take(message)
    return oracle.snapshot()


@dataclass(slots=True)
class _Oracle:
    policies: Policies
    instructor: bool
    mail_templates: MailTemplates
    providers: dict[str, str | None] = field(default_factory=dict)
    exams: dict[str, ExamUpsert] = field(default_factory=dict)
    learners: dict[str, LearnerUpsert] = field(default_factory=dict)
    attempts: dict[tuple[str, str], Attempt] = field(default_factory=dict)
    attempt_codes: set[str] = field(default_factory=set)
    seen: dict[str, Fingerprint] = field(default_factory=dict)
    credit: dict[tuple[str, str], str] = field(default_factory=dict)
    mails: Counter[tuple[str, str]] = field(default_factory=Counter)
    deletions: Counter[tuple[str, str, str | None]] = field(default_factory=Counter)
    histories: defaultdict[tuple[str, str], list[list[str]]] = field(
        default_factory=lambda: defaultdict(list)
    )
    outcomes: dict[str, str] = field(default_factory=dict)
    quarantine: Counter[str] = field(default_factory=Counter)
    effects: Counter[str] = field(default_factory=Counter)

    def take(self, message: Message) -> None:
        if isinstance(message, Malformed):
            self.quarantine[message.code] += 1
        elif message.id not in self.seen:
            self.seen[message.id] = message.fingerprint()
            self.outcomes[message.id] = outcome_text(*self._handle(message))
        elif not message.fingerprint().matches(self.seen[message.id]):
            self.quarantine[QuarantineCode.ID_REUSED] += 1

    def _handle(self, command: Command) -> tuple[Outcome, OutcomeCode | None]:
        match command.data:
            case CourseUpsert() as data:
                self.providers[data.course_id] = data.provider
            case ExamUpsert() as data:
                self.exams[data.exam_id] = data
            case LearnerUpsert() as data:
                self.learners[data.user_id] = data
            case AttemptCreate() as data:
                return self._create(data)
            case AttemptUpdateStatus() as data:
                return self._update(data)
            case AttemptRemove() as data:
                return self._remove(data)
            case _:
                raise AssertionError(f"the oracle does not judge {command.data.type}")
        return Outcome.APPLIED, None

    def _create(self, data: AttemptCreate) -> tuple[Outcome, OutcomeCode | None]:
        exam, key = self._exam(data.exam_id), (data.user_id, data.exam_id)
        decision = decide_create(
            exam,
            data.user_id in self.learners,
            self.attempts.get(key),
            code_taken=data.attempt_code in self.attempt_codes,
        )
        if exam is not None and decision.outcome is Outcome.APPLIED:
            attempt = new_attempt(
                exam, taking_as_proctored=data.taking_as_proctored, external_id=data.external_id
            )
            self._begin(key, replace(attempt, code=data.attempt_code))
            if data.attempt_code is not None:
                self.attempt_codes.add(data.attempt_code)
        return decision.outcome, decision.code

    def _update(self, data: AttemptUpdateStatus) -> tuple[Outcome, OutcomeCode | None]:
        exam, key = self._exam(data.exam_id), (data.user_id, data.exam_id)
        decision = decide_update(
            exam,
            self.attempts.get(key),
            data.to_status,
            self._policy(exam),
            cascade_effects=data.cascade_effects,
            precondition=_precondition(data),
        )
        if exam is not None and decision.outcome is Outcome.APPLIED:
            self._carry_out(data.user_id, exam, decision)
            if decision.cascade:
                self._cascade(data.user_id, exam)
        return decision.outcome, decision.code

    def _remove(self, data: AttemptRemove) -> tuple[Outcome, OutcomeCode | None]:
        exam, key = self._exam(data.exam_id), (data.user_id, data.exam_id)
        removal = decide_removal(
            exam,
            self.attempts.get(key),
            instructor=self.instructor,
            credit=self.policies.credit,
            precondition=_precondition(data),
        )
        if exam is not None and removal.outcome is Outcome.APPLIED:
            del self.attempts[key]
            self.histories[key][-1].append(REMOVED)
            for _, content_id in removal.remove_credit:
                self.effects[EffectKind.REMOVE_CREDIT_STATUS] += 1
                self.credit.pop((data.user_id, content_id), None)
            if removal.delete_student_attempt:
                self.effects[EffectKind.DELETE_STUDENT_ATTEMPT] += 1
                username = self.learners[data.user_id].username
                self.deletions[username, exam.content_id, data.requested_by] += 1
        return removal.outcome, removal.code

    def _cascade(self, user_id: str, started_by: Exam) -> None:
        # The oracle cascades at once. The system may do so later, but before the learner's next command in the
        # course.
        self.effects[EffectKind.CASCADE_DECLINE] += 1
        attempts = {exam: attempt for (user, exam), attempt in self.attempts.items() if user == user_id}
        exams = [_plain(exam) for exam in self.exams.values()]
        for exam in siblings_to_decline(started_by.course_id, started_by.content_id, exams, attempts):
            key = user_id, exam.exam_id
            if key not in self.attempts:
                self._begin(key, new_attempt(exam))
            decision = decide(self.attempts[key], Status.DECLINED, self._policy(exam), cascade_effects=False)
            self._carry_out(user_id, exam, decision)

    def _begin(self, key: tuple[str, str], attempt: Attempt) -> None:
        self.attempts[key] = attempt
        self.histories[key].append([attempt.status])

    def _carry_out(self, user_id: str, exam: Exam, decision: Decision) -> None:
        key = user_id, exam.exam_id
        attempt = evolve(self.attempts[key], decision, NOW)
        if decision.credit is not None:
            attempt = replace(attempt, credit_told=attempt.credit_told | {(exam.course_id, exam.content_id)})
        self.attempts[key] = attempt
        self.histories[key][-1].append(self.attempts[key].status)
        if decision.credit is not None:
            self.effects[EffectKind.SET_CREDIT_STATUS] += 1
            self.credit[user_id, exam.content_id] = decision.credit
        if decision.email:
            self.effects[EffectKind.SEND_STATUS_EMAIL] += 1
            self._mail(user_id, exam.exam_id, self.attempts[key].status)

    def _mail(self, user_id: str, exam_id: str, status: Status) -> None:
        learner = self.learners[user_id]
        exam = self.exams[exam_id]
        text = self.mail_templates.render(
            MailFacts(
                status=status,
                at=NOW,
                learner_name=learner.full_name or learner.username,
                exam_name=exam.exam_name,
                course_id=exam.course_id,
                provider=self.providers.get(exam.course_id),
                language=learner.language,
            )
        )
        self.mails[learner.email, text.subject] += 1

    def _exam(self, exam_id: str) -> Exam | None:
        data = self.exams.get(exam_id)
        return None if data is None else _plain(data)

    def _policy(self, exam: Exam | None) -> Policy:
        return self.policies.of(None if exam is None else self.providers.get(exam.course_id))

    def snapshot(self) -> Snapshot:
        return Snapshot(
            credit=self.credit,
            mails=self.mails,
            deletions=self.deletions,
            attempts={key: _view(attempt) for key, attempt in self.attempts.items()},
            histories={key: tuple(map(tuple, lives)) for key, lives in self.histories.items()},
            outcomes=self.outcomes,
            quarantine=self.quarantine,
            effects=self.effects,
            unfinished={},
        )


def _precondition(data: AttemptData) -> Precondition:
    return Precondition(data.attempt_code, data.external_id, data.from_statuses, data.if_missing)


def _plain(data: ExamUpsert) -> Exam:
    return Exam(
        data.exam_id,
        data.course_id,
        data.content_id,
        data.is_proctored,
        data.is_practice_exam,
        data.is_active,
    )


def _view(attempt: Attempt) -> AttemptView:
    return AttemptView(
        attempt.code,
        attempt.status,
        attempt.taking_as_proctored,
        attempt.external_id,
        attempt.started_at is not None,
        attempt.completed_at is not None,
    )
