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
from worker.rules.policy import CREDIT_OF, PRESETS, Policy, RepeatStatus, TimeOuts
from worker.rules.values import Attempt, Exam, Precondition

EXAM = Exam("A", "course", "c1", is_proctored=True, is_practice_exam=False, is_active=True)
PROVIDER, PLATFORM = PRESETS["provider"], PRESETS["platform"]


@given(attempts, st.lists(st.tuples(asked, st.booleans()), max_size=8), policies)
def test_no_sequence_reaches_a_forbidden_state(
    attempt: Attempt, requests: list[tuple[str | None, bool]], policy: Policy
) -> None:
    for to_status, cascade_effects in requests:
        decision = decide(attempt, to_status, policy, cascade_effects=cascade_effects)
        after = evolve(attempt, decision, NOW)
        if attempt.status in COMPLETED:
            assert after.status in COMPLETED
            assert after.status is not Status.ERROR or attempt.status is Status.ERROR
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


@given(attempts, statuses, policies, st.booleans())
def test_what_an_applied_change_owes(
    attempt: Attempt, to_status: Status, policy: Policy, cascade_effects: bool
) -> None:
    decision = decide(attempt, to_status, policy, cascade_effects=cascade_effects)
    if decision.outcome is not Outcome.APPLIED:
        return
    status = decision.status
    assert status is not None
    after = evolve(attempt, decision, NOW)
    assert decision.credit == (CREDIT_OF[status] if status in policy.credit_on else None)
    assert decision.cascade == (cascade_effects and status in policy.cascade_on)
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


@pytest.mark.parametrize("current", sorted(Status))
def test_a_protected_verdict_ignores_a_late_time_out(current: Status) -> None:
    # This is decided before the alias, so it does not matter whether the time-out becomes `submitted`.
    for time_outs in TimeOuts:
        policy = Policy(allow_timed_out_state=time_outs, protect_verdicts=True)
        decision = decide(Attempt(current), "timed_out", policy)
        late = decision == Decision(Outcome.IGNORED, current, OutcomeCode.LATE_TIMEOUT)
        assert late == (current in (Status.VERIFIED, Status.REJECTED))
    assert decide(Attempt(current), "submitted", policy).outcome is not Outcome.IGNORED


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
