"""The siblings that a cascade declines."""

from hypothesis import given
from hypothesis import strategies as st

from events.vocabulary import COMPLETED
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
    for exam in all_exams:
        attempt = live.get(exam.exam_id)
        expected = (
            exam.course_id == "course"
            and exam.content_id != "c1"
            and exam.is_active
            and exam.is_proctored
            and not exam.is_practice_exam
            and (attempt is None or attempt.status not in COMPLETED)
        )
        assert (exam in declined) == expected
    assert declined == sorted(declined, key=lambda exam: exam.exam_id)
