"""Hypothesis strategies for attempts, policies and exams."""

from datetime import UTC, datetime

from hypothesis import strategies as st

from events.vocabulary import Status
from worker.rules.policy import (
    CREDIT_OF,
    MAIL_STATUSES,
    CreditDeclined,
    ErrorAfterCompletion,
    Policy,
    ReenterRunning,
    RepeatStatus,
    TimedOutBeforeStart,
    TimeOuts,
)
from worker.rules.values import Attempt, Exam

NOW = datetime(2026, 3, 1, 9, tzinfo=UTC)
EARLIER = datetime(2026, 2, 1, 9, tzinfo=UTC)

statuses = st.sampled_from(Status)
policies = st.builds(
    Policy,
    allow_timed_out_state=st.sampled_from(TimeOuts),
    repeat_status=st.sampled_from(RepeatStatus),
    cascade_on=st.frozensets(statuses),
    credit_on=st.frozensets(st.sampled_from(sorted(CREDIT_OF))),
    email_on=st.frozensets(st.sampled_from(sorted(MAIL_STATUSES))),
    protect_verdicts=st.booleans(),
    cascade_from_practice=st.booleans(),
    credit_declined=st.sampled_from(CreditDeclined),
    reenter_running=st.sampled_from(ReenterRunning),
    error_after_completion=st.sampled_from(ErrorAfterCompletion),
    timed_out_before_start=st.sampled_from(TimedOutBeforeStart),
)
attempts = st.builds(
    Attempt,
    status=statuses,
    taking_as_proctored=st.booleans(),
    is_sample_attempt=st.booleans(),
    external_id=st.sampled_from([None, "ext"]),
    started_at=st.sampled_from([None, EARLIER]),
    completed_at=st.sampled_from([None, EARLIER]),
    credit_owed=st.booleans(),
)
exams = st.builds(
    Exam,
    exam_id=st.sampled_from("ABCDEF"),
    course_id=st.sampled_from(["course", "other"]),
    content_id=st.sampled_from(["c1", "c2", "c3"]),
    is_proctored=st.booleans(),
    is_practice_exam=st.booleans(),
    is_active=st.booleans(),
)
asked = st.one_of(statuses.map(str), st.none(), st.sampled_from(["", "verifed", "Verified", "STARTED"]))
