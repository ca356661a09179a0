"""Decides whether an attempt may change and what follows (docs/rules.md, "Update status", "Create and remove")."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from events.vocabulary import INCOMPLETE, IfMissing, Outcome, OutcomeCode, Status
from worker.rules.policy import (
    CREDIT_OF,
    ErrorAfterCompletion,
    Policy,
    ReenterRunning,
    RepeatStatus,
    TimedOutBeforeStart,
    TimeOuts,
)
from worker.rules.values import NO_PRECONDITION, Attempt, Exam, Precondition, Requirement

VERDICTS = frozenset({Status.VERIFIED, Status.REJECTED})
"""What a reviewer has decided."""
RUNNING = frozenset({Status.STARTED, Status.READY_TO_SUBMIT})
"""The learner is at work on the exam."""
BEFORE_START = INCOMPLETE - RUNNING
"""The learner has not started the exam."""
ENTRY = BEFORE_START - {Status.ELIGIBLE}
"""What a learner who enters an exam goes through before the start."""


@dataclass(frozen=True, slots=True)
class Decision:
    """The outcome of a command on an attempt, and everything that follows from it.

    `status` is the attempt's status afterwards, or None when there is no attempt. `credit` is the word that the
    credit service must be told, or None when no credit is owed. `cascade` and `email` say which other effects are
    owed. `set_started_at`, `set_completed_at` and `clear_proctoring` say which fields of the attempt change.
    """

    outcome: Outcome
    status: Status | None = None
    code: OutcomeCode | None = None
    credit: str | None = None
    cascade: bool = False
    email: bool = False
    set_started_at: bool = False
    set_completed_at: bool = False
    clear_proctoring: bool = False


@dataclass(frozen=True, slots=True)
class Removal:
    """The outcome of a removal, and which effects are owed (docs/rules.md, "Create and remove").

    `status` is that of the attempt, or None when there is none. `remove_credit` names the credit requirements that
    must be removed.
    """

    outcome: Outcome
    status: Status | None = None
    code: OutcomeCode | None = None
    remove_credit: Sequence[Requirement] = ()
    delete_student_attempt: bool = False


def rejected(code: OutcomeCode, status: Status | None = None) -> Decision:
    """Return the decision that refuses a command. The attempt keeps `status`."""
    return Decision(Outcome.REJECTED, status, code)


def decide_update(
    exam: Exam | None,
    attempt: Attempt | None,
    to_status: str | None,
    policy: Policy,
    *,
    cascade_effects: bool = True,
    precondition: Precondition = NO_PRECONDITION,
) -> Decision:
    """Decide an update-status command (docs/rules.md, "Update status", steps 1 to 7).

    Parameters:
        exam: the exam, or None when it is unknown.
        attempt: the learner's live attempt at the exam, or None.
        to_status: the requested status. It may be any string, or None; an unknown one is rejected.
        policy: the policy of the exam's course.
        cascade_effects: False when the sender wants no sibling attempts declined.
        precondition: which attempt the sender means, and how it must be found.
    """
    found = find(exam, attempt, precondition)
    if isinstance(found, Decision):
        return found
    assert exam is not None, "an attempt was found"
    return decide(
        found, to_status, policy, cascade_effects=cascade_effects, is_practice_exam=exam.is_practice_exam
    )


def find(exam: Exam | None, attempt: Attempt | None, precondition: Precondition) -> Attempt | Decision:
    """Return the attempt that a command is about, or the decision if it cannot be handled on that attempt.

    docs/rules.md has the order of the checks under "Which attempt".

    Parameters:
        exam: the exam, or None when it is unknown.
        attempt: the learner's live attempt at the exam, or None.
        precondition: which attempt the sender means, and how it must be found.
    """
    if exam is None:
        return rejected(OutcomeCode.EXAM_NOT_FOUND)
    missing = Outcome.IGNORED if precondition.if_missing is IfMissing.IGNORE else Outcome.REJECTED
    if attempt is None:
        is_stale = precondition.names_an_attempt
        code = OutcomeCode.STALE_ATTEMPT if is_stale else OutcomeCode.ATTEMPT_NOT_FOUND
        return Decision(missing, None, code)
    if not precondition.means(attempt):
        return Decision(missing, attempt.status, OutcomeCode.STALE_ATTEMPT)
    if not precondition.allows(attempt.status):
        return Decision(Outcome.IGNORED, attempt.status, OutcomeCode.PRECONDITION_FAILED)
    return attempt


def decide(
    attempt: Attempt,
    to_status: str | None,
    policy: Policy,
    *,
    cascade_effects: bool = True,
    is_practice_exam: bool = False,
) -> Decision:
    """Decide a change of status of an attempt that exists (docs/rules.md, "Update status", steps 2 to 7).

    Parameters:
        attempt: the attempt as it is now.
        to_status: the requested status. It may be any string, or None; an unknown one is rejected.
        policy: the policy of the exam's course.
        cascade_effects: False when the sender wants no sibling attempts declined.
        is_practice_exam: whether the exam is a practice exam now. The attempt's own flag, `is_sample_attempt`, is
            that of the time when the attempt was created.

    Example:
        >>> started = Attempt(Status.STARTED, taking_as_proctored=True)
        >>> decision = decide(started, "submitted", Policy())
        >>> print(decision.outcome, decision.status, decision.credit, decision.email)
        applied submitted submitted True

        A completed attempt does not go back, and a request for the status that it has changes nothing:

        >>> submitted = Attempt(Status.SUBMITTED)
        >>> print(decide(submitted, "started", Policy()).code)
        illegal_transition
        >>> print(decide(submitted, "submitted", Policy()).outcome)
        unchanged

        Where verdicts are protected, only another verdict changes one:

        >>> careful = Policy(protect_verdicts=True)
        >>> verified = Attempt(Status.VERIFIED)
        >>> for asked in ("rejected", "submitted", "timed_out"):
        ...     decision = decide(verified, asked, careful)
        ...     print(decision.outcome, decision.code)
        applied None
        ignored verdict_protected
        ignored late_timeout
    """
    current = attempt.status
    if to_status not in _STATUSES:
        return rejected(OutcomeCode.UNKNOWN_STATUS, current)
    asked = Status(to_status)
    if policy.protect_verdicts and current in VERDICTS and asked not in VERDICTS:
        late = asked is Status.TIMED_OUT
        code = OutcomeCode.LATE_TIMEOUT if late else OutcomeCode.VERDICT_PROTECTED
        return Decision(Outcome.IGNORED, current, code)
    new = _alias(current, asked, policy)
    if _is_illegal(current, new, policy):
        return rejected(OutcomeCode.ILLEGAL_TRANSITION, current)
    if new is current and policy.repeat_status is RepeatStatus.IGNORE:
        return Decision(Outcome.UNCHANGED, current)
    may_cascade = cascade_effects and (policy.cascade_from_practice or not is_practice_exam)
    return _apply(attempt, new, policy, may_cascade)


_STATUSES = frozenset(str(status) for status in Status)


def _alias(current: Status, asked: Status, policy: Policy) -> Status:
    """Return the status that stands for the requested one. Every later rule sees only this one."""
    if asked is Status.TIMED_OUT and not _keeps_time_out(current, policy):
        return Status.SUBMITTED
    if current in RUNNING and asked in ENTRY and policy.reenter_running is ReenterRunning.SUBMITTED:
        return Status.SUBMITTED
    return asked


def _keeps_time_out(current: Status, policy: Policy) -> bool:
    if current in BEFORE_START and policy.timed_out_before_start is TimedOutBeforeStart.TIMED_OUT:
        return True
    if policy.allow_timed_out_state is TimeOuts.FROM_CREATED:
        return current is Status.CREATED
    return policy.allow_timed_out_state is TimeOuts.ALWAYS


def _is_illegal(current: Status, new: Status, policy: Policy) -> bool:
    if current in INCOMPLETE:
        return False
    if new is Status.ERROR:
        return policy.error_after_completion is ErrorAfterCompletion.ILLEGAL
    return new in INCOMPLETE


def _apply(attempt: Attempt, new: Status, policy: Policy, may_cascade: bool) -> Decision:
    cascade = may_cascade and new in policy.cascade_on
    clear_proctoring = cascade and new is Status.DECLINED
    proctored = attempt.taking_as_proctored and not clear_proctoring
    return Decision(
        Outcome.APPLIED,
        new,
        credit=policy.credit_of(new),
        cascade=cascade,
        email=proctored and not attempt.is_sample_attempt and new in policy.email_on,
        set_started_at=new is Status.STARTED and attempt.started_at is None,
        set_completed_at=new is Status.SUBMITTED,
        clear_proctoring=clear_proctoring,
    )


def evolve(
    attempt: Attempt, decision: Decision, now: datetime, requirement: Requirement | None = None
) -> Attempt:
    """Return the attempt after a decision. Only a decision that is `applied` changes it.

    Parameters:
        attempt: the attempt before the decision.
        decision: the decision of `decide` or `decide_update`.
        now: an aware datetime, for `started_at` and `completed_at`.
        requirement: whose credit status is owed if the decision says so.
    """
    if decision.outcome is not Outcome.APPLIED or decision.status is None:
        return attempt
    owes_credit = decision.credit is not None
    told = {requirement} if owes_credit and requirement is not None else set()
    # Every field is named: `replace` takes five times as long.
    return Attempt(
        status=decision.status,
        taking_as_proctored=attempt.taking_as_proctored and not decision.clear_proctoring,
        is_sample_attempt=attempt.is_sample_attempt,
        external_id=None if decision.clear_proctoring else attempt.external_id,
        started_at=now if decision.set_started_at else attempt.started_at,
        completed_at=now if decision.set_completed_at else attempt.completed_at,
        credit_owed=attempt.credit_owed or owes_credit,
        code=attempt.code,
        external_ids=attempt.external_ids,
        credit_told=attempt.credit_told | told,
    )


def decide_create(
    exam: Exam | None, learner_known: bool, attempt: Attempt | None, *, code_taken: bool = False
) -> Decision:
    """Decide a create command (docs/rules.md, "Create and remove").

    A learner has at most one live attempt at an exam, so a second one is rejected.

    Parameters:
        exam: the exam, or None when it is unknown.
        learner_known: whether a `learner.upsert` has been handled for this learner.
        attempt: the learner's live attempt at the exam, or None.
        code_taken: whether an attempt has the attempt code that is asked for, be it live or removed.
    """
    if exam is None:
        return rejected(OutcomeCode.EXAM_NOT_FOUND)
    if not learner_known:
        return rejected(OutcomeCode.LEARNER_NOT_FOUND)
    if attempt is not None:
        return rejected(OutcomeCode.ATTEMPT_EXISTS, attempt.status)
    if code_taken:
        return rejected(OutcomeCode.ATTEMPT_CODE_TAKEN)
    return Decision(Outcome.APPLIED, Status.CREATED)


def new_attempt(exam: Exam, *, taking_as_proctored: bool = False, external_id: str | None = None) -> Attempt:
    """Return a new attempt in status `created`. An attempt at a practice exam is a sample attempt."""
    return Attempt(
        Status.CREATED,
        taking_as_proctored=taking_as_proctored,
        is_sample_attempt=exam.is_practice_exam,
        external_id=external_id,
        external_ids=frozenset() if external_id is None else frozenset({external_id}),
    )


def decide_removal(
    exam: Exam | None,
    attempt: Attempt | None,
    *,
    instructor: bool,
    credit: bool = True,
    precondition: Precondition = NO_PRECONDITION,
) -> Removal:
    """Decide a removal, which is legal in every status (docs/rules.md, "Create and remove").

    Parameters:
        exam: the exam, or None when it is unknown.
        attempt: the learner's live attempt, or None.
        instructor: whether the platform has an instructor service, which must then delete the learner's answers.
        credit: False when the platform removes credit itself. Then only what the attempt has set must be removed.
        precondition: which attempt the sender means, and how it must be found.
    """
    found = find(exam, attempt, precondition)
    if isinstance(found, Decision):
        return Removal(found.outcome, found.status, found.code)
    return Removal(
        Outcome.APPLIED,
        found.status,
        remove_credit=_requirements_of(found, exam) if credit else sorted(found.credit_told),
        delete_student_attempt=instructor,
    )


def _requirements_of(attempt: Attempt, exam: Exam | None) -> list[Requirement]:
    """Return the credit requirements that the attempt has set, under the names that they were set with."""
    if attempt.credit_told or exam is None:
        return sorted(attempt.credit_told)
    is_needed = attempt.status in CREDIT_OF or attempt.credit_owed
    return [(exam.course_id, exam.content_id)] if is_needed else []
