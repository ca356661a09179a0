"""The siblings that a cascade declines."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from events.vocabulary import COMPLETED, Status
from tests.unit.rules.strategies import attempts, exams
from worker.rules.cascade import siblings_to_decline
from worker.rules.values import Attempt, Exam


@given(
    st.lists(exams, unique_by=lambda exam: exam.exam_id),
    st.dictionaries(st.sampled_from("ABCDEF"), attempts),
)
def test_a_cascade_declines_what_it_should_and_nothing_else(
    all_exams: list[Exam], live: dict[str, Attempt]
) -> None:
    declined = siblings_to_decline("course", "c1", all_exams, live)
    completed = {
        (exam.course_id, exam.content_id)
        for exam in all_exams
        if exam.exam_id in live and live[exam.exam_id].status in COMPLETED
    }
    for exam in all_exams:
        expected = (
            exam.course_id == "course"
            and exam.content_id != "c1"
            and exam.is_active
            and exam.is_proctored
            and not exam.is_practice_exam
            and (exam.course_id, exam.content_id) not in completed
        )
        assert (exam in declined) == expected
    assert declined == sorted(declined, key=lambda exam: exam.exam_id)


OLD = Exam("old", "course", "x", is_proctored=True, is_practice_exam=False, is_active=False)
NEW = Exam("new", "course", "x", is_proctored=True, is_practice_exam=False, is_active=True)


@pytest.mark.parametrize("status", sorted(COMPLETED))
def test_content_that_is_completed_at_another_exam_is_left_alone(status: Status) -> None:
    assert siblings_to_decline("course", "c1", [OLD, NEW], {"old": Attempt(status)}) == []
    assert siblings_to_decline("course", "c1", [OLD, NEW], {"old": Attempt(Status.STARTED)}) == [NEW]


def test_so_is_content_whose_credit_was_told_before_the_exam_got_other_content() -> None:
    told = Attempt(Status.VERIFIED, credit_told=frozenset({("course", "x")}))
    changed = replace(OLD, content_id="y")
    assert siblings_to_decline("course", "c1", [changed, NEW], {"old": told}) == []
    elsewhere = replace(told, credit_told=frozenset({("another course", "x")}))
    assert siblings_to_decline("course", "c1", [changed, NEW], {"old": elsewhere}) == [NEW]
