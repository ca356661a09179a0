"""Properties of the rules, for every pair of statuses under every policy."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from events.vocabulary import COMPLETED, INCOMPLETE, IfMissing, Outcome, OutcomeCode, Status
from tests.unit.rules.strategies import EARLIER, NOW, asked, attempts, exams, policies, statuses
from worker.rules.decisions import (
    Decision,
    Removal,
    decide,
    decide_create,
    decide_removal,
    decide_update,
    evolve,
    new_attempt,
)
from worker.rules.policy import (
    CREDIT_OF,
    PRESETS,
    CreditDeclined,
    ErrorAfterCompletion,
    Policy,
    ReenterRunning,
    RepeatStatus,
    TimedOutBeforeStart,
    TimeOuts,
)
from worker.rules.values import Attempt, Exam, Precondition

EXAM = Exam("A", "course", "c1", is_proctored=True, is_practice_exam=False, is_active=True)
PRACTICE = replace(EXAM, is_practice_exam=True)
PROVIDER, PLATFORM = PRESETS["provider"], PRESETS["platform"]
VERDICTS = {Status.VERIFIED, Status.REJECTED}
RUNNING = {Status.STARTED, Status.READY_TO_SUBMIT}
ENTRY = {Status.CREATED, Status.DOWNLOAD_SOFTWARE_CLICKED, Status.READY_TO_START}
BEFORE_START = {Status.ELIGIBLE, *ENTRY}


@given(attempts, st.lists(st.tuples(asked, st.booleans()), max_size=8), policies)
def test_no_sequence_reaches_a_forbidden_state(
    attempt: Attempt, requests: list[tuple[str | None, bool]], policy: Policy
) -> None:
    for to_status, cascade_effects in requests:
        decision = decide(attempt, to_status, policy, cascade_effects=cascade_effects)
        after = evolve(attempt, decision, NOW)
        if attempt.status in COMPLETED:
            assert after.status in COMPLETED
            assert (
                after.status is not Status.ERROR
                or attempt.status is Status.ERROR
                or policy.error_after_completion is ErrorAfterCompletion.LEGAL
            )
        if policy.protect_verdicts and attempt.status in VERDICTS:
            assert after.status in VERDICTS
        assert attempt.started_at is None or after.started_at == attempt.started_at
        assert after.is_sample_attempt == attempt.is_sample_attempt
        assert after.credit_owed >= attempt.credit_owed
        assert not (decision.email and not attempt.taking_as_proctored)
        attempt = after


@given(attempts, asked, policies, st.booleans())
def test_the_same_input_is_decided_the_same(
    attempt: Attempt, to_status: str | None, policy: Policy, cascade_effects: bool
) -> None:
    first = decide(attempt, to_status, policy, cascade_effects=cascade_effects)
    assert first == decide(attempt, to_status, policy, cascade_effects=cascade_effects)


@given(attempts, asked, policies, st.booleans())
def test_only_what_is_applied_changes_anything(
    attempt: Attempt, to_status: str | None, policy: Policy, cascade_effects: bool
) -> None:
    decision = decide(attempt, to_status, policy, cascade_effects=cascade_effects)
    if decision.outcome is not Outcome.APPLIED:
        assert evolve(attempt, decision, NOW) == attempt
        assert decision == Decision(decision.outcome, attempt.status, decision.code)
    assert (decision.code is None) == (decision.outcome in (Outcome.APPLIED, Outcome.UNCHANGED))


@given(attempts, statuses, policies, st.booleans(), st.booleans())
def test_what_an_applied_change_owes(
    attempt: Attempt, to_status: Status, policy: Policy, cascade_effects: bool, is_practice_exam: bool
) -> None:
    decision = decide(
        attempt, to_status, policy, cascade_effects=cascade_effects, is_practice_exam=is_practice_exam
    )
    if decision.outcome is not Outcome.APPLIED:
        return
    status = decision.status
    assert status is not None
    after = evolve(attempt, decision, NOW)
    words = {**CREDIT_OF, Status.DECLINED: policy.credit_declined.value}
    assert decision.credit == (words[status] if status in policy.credit_on else None)
    assert decision.cascade == (
        cascade_effects
        and status in policy.cascade_on
        and not (is_practice_exam and not policy.cascade_from_practice)
    )
    assert decision.clear_proctoring == (decision.cascade and status is Status.DECLINED)
    assert decision.email == (
        after.taking_as_proctored and not after.is_sample_attempt and status in policy.email_on
    )
    assert decision.set_completed_at == (status is Status.SUBMITTED)
    assert decision.set_started_at == (status is Status.STARTED and attempt.started_at is None)
    if decision.clear_proctoring:
        assert (after.taking_as_proctored, after.external_id) == (False, None)


@given(attempts, st.sampled_from(TimeOuts))
def test_a_time_out_is_kept_or_becomes_submitted(attempt: Attempt, allowed: TimeOuts) -> None:
    policy = Policy(allow_timed_out_state=allowed, repeat_status=RepeatStatus.REAPPLY)
    kept = allowed is TimeOuts.ALWAYS or (
        allowed is TimeOuts.FROM_CREATED and attempt.status is Status.CREATED
    )
    expected = Status.TIMED_OUT if kept else Status.SUBMITTED
    assert decide(attempt, "timed_out", policy).status is expected


@pytest.mark.parametrize("current", sorted(COMPLETED))
@pytest.mark.parametrize("target", sorted(INCOMPLETE | {Status.ERROR}))
@pytest.mark.parametrize("policy", [PROVIDER, PLATFORM], ids=["provider", "platform"])
def test_there_is_no_way_back(current: Status, target: Status, policy: Policy) -> None:
    decision = decide(Attempt(current), target, policy)
    assert decision == Decision(Outcome.REJECTED, current, OutcomeCode.ILLEGAL_TRANSITION)


@pytest.mark.parametrize("status", [status for status in Status if status is not Status.ERROR])
def test_the_same_status_again(status: Status) -> None:
    ignoring = Policy(allow_timed_out_state=TimeOuts.ALWAYS)
    reapplying = Policy(allow_timed_out_state=TimeOuts.ALWAYS, repeat_status=RepeatStatus.REAPPLY)
    assert decide(Attempt(status), status, ignoring).outcome is Outcome.UNCHANGED
    assert decide(Attempt(status), status, reapplying).outcome is Outcome.APPLIED


@given(attempts, statuses, policies)
def test_a_protected_verdict_takes_only_a_verdict(
    attempt: Attempt, to_status: Status, policy: Policy
) -> None:
    # It is judged before the alias and the transition, and a verdict is judged as without the protection.
    guarded, open_ = replace(policy, protect_verdicts=True), replace(policy, protect_verdicts=False)
    decision = decide(attempt, to_status, guarded)
    if attempt.status in VERDICTS and to_status not in VERDICTS:
        late = to_status is Status.TIMED_OUT
        code = OutcomeCode.LATE_TIMEOUT if late else OutcomeCode.VERDICT_PROTECTED
        assert decision == Decision(Outcome.IGNORED, attempt.status, code)
    else:
        assert decision == decide(attempt, to_status, open_)


def test_the_same_verdict_again_is_a_repetition() -> None:
    verified = Attempt(Status.VERIFIED)
    guarded = Policy(protect_verdicts=True)
    assert decide(verified, "verified", guarded).outcome is Outcome.UNCHANGED
    reapplied = decide(verified, "verified", replace(guarded, repeat_status=RepeatStatus.REAPPLY))
    assert (reapplied.outcome, reapplied.credit) == (Outcome.APPLIED, "satisfied")


@given(attempts, statuses, policies)
def test_a_running_attempt_is_submitted_when_its_learner_enters_again(
    attempt: Attempt, to_status: Status, policy: Policy
) -> None:
    submits = replace(policy, reenter_running=ReenterRunning.SUBMITTED)
    goes_back = replace(policy, reenter_running=ReenterRunning.ITSELF)
    enters_again = attempt.status in RUNNING and to_status in ENTRY
    if enters_again:
        assert decide(attempt, to_status, submits) == decide(attempt, "submitted", submits)
        assert decide(attempt, to_status, goes_back).status is to_status
    else:
        assert decide(attempt, to_status, submits) == decide(attempt, to_status, goes_back)


@given(attempts, statuses, policies)
def test_error_after_completion(attempt: Attempt, to_status: Status, policy: Policy) -> None:
    policy = replace(policy, protect_verdicts=False)
    legal = replace(policy, error_after_completion=ErrorAfterCompletion.LEGAL)
    illegal = replace(policy, error_after_completion=ErrorAfterCompletion.ILLEGAL)
    if attempt.status in COMPLETED and to_status is Status.ERROR:
        refused = Decision(Outcome.REJECTED, attempt.status, OutcomeCode.ILLEGAL_TRANSITION)
        assert decide(attempt, to_status, illegal) == refused
        assert decide(attempt, to_status, legal).status is Status.ERROR
    else:
        assert decide(attempt, to_status, legal) == decide(attempt, to_status, illegal)


def test_an_error_again_is_a_repetition() -> None:
    legal = Policy(error_after_completion=ErrorAfterCompletion.LEGAL)
    error = Attempt(Status.ERROR)
    assert decide(error, "error", legal).outcome is Outcome.UNCHANGED
    assert decide(error, "error", replace(legal, repeat_status=RepeatStatus.REAPPLY)).credit == "failed"


@given(attempts, statuses | st.just(Status.TIMED_OUT), policies)
def test_a_time_out_before_the_start(attempt: Attempt, to_status: Status, policy: Policy) -> None:
    as_policy = replace(policy, timed_out_before_start=TimedOutBeforeStart.AS_POLICY)
    kept = replace(policy, timed_out_before_start=TimedOutBeforeStart.TIMED_OUT)
    if attempt.status in BEFORE_START and to_status is Status.TIMED_OUT:
        decision = decide(attempt, to_status, kept)
        assert (decision.status, decision.credit) == (Status.TIMED_OUT, None)
    else:
        assert decide(attempt, to_status, kept) == decide(attempt, to_status, as_policy)


def test_the_kind_of_the_exam_decides_whether_it_may_decline_others() -> None:
    # Given attempts that were made before the exam became a practice exam, and after
    for sample in (False, True):
        attempt = Attempt(Status.CREATED, taking_as_proctored=True, is_sample_attempt=sample)
        policy = Policy(cascade_from_practice=False)
        # Then only the exam's kind counts, and an attempt that declines nobody keeps its fields
        apart = decide_update(PRACTICE, attempt, "declined", policy)
        assert (apart.cascade, apart.clear_proctoring) == (False, False)
        assert decide_update(EXAM, attempt, "declined", policy).cascade
        assert decide_update(PRACTICE, attempt, "declined", PROVIDER).cascade


def test_the_word_for_declined() -> None:
    declined = Policy(credit_declined=CreditDeclined.DECLINED)
    words = {status: declined.credit_of(status) for status in Status}
    assert words == {**dict.fromkeys(Status), **CREDIT_OF, Status.DECLINED: "declined"}
    assert replace(declined, credit_on=frozenset()).credit_of(Status.DECLINED) is None


@pytest.mark.parametrize("to_status", [None, "", "verifed", "Verified", "timed-out"])
def test_an_unknown_status_is_refused_from_everywhere(to_status: str | None) -> None:
    for current in Status:
        decision = decide(Attempt(current), to_status, PROVIDER)
        assert decision == Decision(Outcome.REJECTED, current, OutcomeCode.UNKNOWN_STATUS)


def test_what_is_checked_first() -> None:
    # exam, live attempt, named attempt, from_statuses, status, transition
    assert decide_update(None, None, "verifed", PROVIDER).code is OutcomeCode.EXAM_NOT_FOUND
    assert decide_update(EXAM, None, "verifed", PROVIDER).code is OutcomeCode.ATTEMPT_NOT_FOUND
    named = Precondition(attempt_code="2", from_statuses=[Status.STARTED])
    assert (
        decide_update(None, None, "verifed", PROVIDER, precondition=named).code is OutcomeCode.EXAM_NOT_FOUND
    )
    assert (
        decide_update(EXAM, None, "verifed", PROVIDER, precondition=named).code is OutcomeCode.STALE_ATTEMPT
    )
    verified = Attempt(Status.VERIFIED, code="1")
    assert (
        decide_update(EXAM, verified, "verifed", PROVIDER, precondition=named).code
        is OutcomeCode.STALE_ATTEMPT
    )
    meant = Precondition(attempt_code="1", from_statuses=[Status.STARTED])
    assert decide_update(EXAM, verified, "verifed", PROVIDER, precondition=meant) == Decision(
        Outcome.IGNORED, Status.VERIFIED, OutcomeCode.PRECONDITION_FAILED
    )
    assert decide_update(EXAM, verified, "verifed", PROVIDER).code is OutcomeCode.UNKNOWN_STATUS
    assert decide_update(EXAM, verified, "started", PROVIDER).code is OutcomeCode.ILLEGAL_TRANSITION
    assert decide_update(EXAM, verified, "rejected", PROVIDER).outcome is Outcome.APPLIED


def test_a_missing_attempt_may_be_ignored() -> None:
    ignored = decide_update(
        EXAM, None, "started", PROVIDER, precondition=Precondition(if_missing=IfMissing.IGNORE)
    )
    assert ignored == Decision(Outcome.IGNORED, None, OutcomeCode.ATTEMPT_NOT_FOUND)
    unknown = decide_update(
        None, None, "started", PROVIDER, precondition=Precondition(if_missing=IfMissing.IGNORE)
    )
    assert unknown.outcome is Outcome.REJECTED


NAMES = [
    (Precondition(), True),
    (Precondition(attempt_code="1"), True),
    (Precondition(attempt_code="2"), False),
    (Precondition(external_id="now"), True),
    (Precondition(external_id="before"), True),
    (Precondition(external_id="never"), False),
    (Precondition(attempt_code="1", external_id="before"), True),
    (Precondition(attempt_code="1", external_id="never"), False),
    (Precondition(attempt_code="2", external_id="now"), False),
]


@pytest.mark.parametrize(("precondition", "fits"), NAMES)
@pytest.mark.parametrize("if_missing", list(IfMissing))
def test_a_command_is_for_the_attempt_that_it_names(
    precondition: Precondition, fits: bool, if_missing: IfMissing
) -> None:
    attempt = Attempt(Status.STARTED, external_id="now", code="1", external_ids=frozenset({"now", "before"}))
    precondition = replace(precondition, if_missing=if_missing)
    refused = Outcome.IGNORED if if_missing is IfMissing.IGNORE else Outcome.REJECTED
    updated = decide_update(EXAM, attempt, "submitted", PROVIDER, precondition=precondition)
    removed = decide_removal(EXAM, attempt, instructor=True, precondition=precondition)
    if fits:
        assert (updated.outcome, removed.outcome) == (Outcome.APPLIED, Outcome.APPLIED)
    else:
        assert updated == Decision(refused, Status.STARTED, OutcomeCode.STALE_ATTEMPT)
        assert removed == Removal(refused, Status.STARTED, OutcomeCode.STALE_ATTEMPT)


@pytest.mark.parametrize("status", sorted(Status))
def test_a_command_finds_the_attempt_in_one_of_the_statuses_that_it_expects(status: Status) -> None:
    for expected in ((), (status,), tuple(Status), tuple(set(Status) - {status})):
        precondition = Precondition(from_statuses=expected)
        removal = decide_removal(EXAM, Attempt(status), instructor=False, precondition=precondition)
        code = None if status in expected else OutcomeCode.PRECONDITION_FAILED
        assert removal.code is code


def test_creating() -> None:
    created = Attempt(Status.CREATED)
    assert decide_create(None, False, None).code is OutcomeCode.EXAM_NOT_FOUND
    assert decide_create(EXAM, False, None).code is OutcomeCode.LEARNER_NOT_FOUND
    assert decide_create(EXAM, True, created).code is OutcomeCode.ATTEMPT_EXISTS
    assert decide_create(EXAM, True, created, code_taken=True).code is OutcomeCode.ATTEMPT_EXISTS
    assert decide_create(EXAM, True, None, code_taken=True).code is OutcomeCode.ATTEMPT_CODE_TAKEN
    assert decide_create(EXAM, True, None) == Decision(Outcome.APPLIED, Status.CREATED)


@given(exams, st.booleans())
def test_a_practice_exam_has_sample_attempts(exam: Exam, proctored: bool) -> None:
    attempt = new_attempt(exam, taking_as_proctored=proctored, external_id="ext")
    assert attempt.is_sample_attempt == exam.is_practice_exam
    assert (attempt.status, attempt.taking_as_proctored, attempt.external_id) == (
        Status.CREATED,
        proctored,
        "ext",
    )


@given(attempts, st.booleans())
def test_removing(attempt: Attempt, instructor: bool) -> None:
    removal = decide_removal(EXAM, attempt, instructor=instructor)
    assert removal.outcome is Outcome.APPLIED
    present = (EXAM.course_id, EXAM.content_id)
    assert removal.remove_credit == ([present] if attempt.status in CREDIT_OF or attempt.credit_owed else [])
    assert removal.delete_student_attempt == instructor
    assert decide_removal(None, attempt, instructor=instructor).code is OutcomeCode.EXAM_NOT_FOUND
    assert decide_removal(EXAM, None, instructor=instructor).code is OutcomeCode.ATTEMPT_NOT_FOUND


def test_times_are_kept_once_set() -> None:
    started = evolve(Attempt(Status.CREATED), decide(Attempt(Status.CREATED), "started", PROVIDER), NOW)
    assert started.started_at == NOW
    again = Attempt(Status.READY_TO_SUBMIT, started_at=EARLIER)
    assert evolve(again, decide(again, "started", PROVIDER), NOW).started_at == EARLIER
    resubmitted = Attempt(Status.VERIFIED, completed_at=EARLIER)
    assert evolve(resubmitted, decide(resubmitted, "submitted", PROVIDER), NOW).completed_at == NOW


def test_a_removal_removes_every_requirement_under_the_name_that_it_was_set_with() -> None:
    told = frozenset({("course", "before"), ("another course", "now")})
    for status in Status:
        attempt = Attempt(status, credit_owed=True, credit_told=told)
        assert decide_removal(EXAM, attempt, instructor=False).remove_credit == sorted(told)


@given(attempts)
def test_credit_that_is_the_platforms_is_not_removed(attempt: Attempt) -> None:
    removal = decide_removal(EXAM, attempt, instructor=False, credit=False)
    assert removal.remove_credit == sorted(attempt.credit_told)
