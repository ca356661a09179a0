"""Strategies for the commands of an LMS. There are few learners and exams, so that commands interact."""

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from events.commands import (
    AttemptCreate,
    AttemptRemove,
    AttemptUpdateStatus,
    CommandData,
    CourseUpsert,
    ExamUpsert,
    LearnerUpsert,
)
from events.vocabulary import IfMissing, Status
from worker.policies import Policies
from worker.rules.policy import PRESETS

PROVIDER = "acme"
POLICIES = Policies(providers={PROVIDER: PRESETS["platform"]})
COURSES = {"physics": None, "art": PROVIDER}
EXAMS = {"A": "physics", "B": "physics", "P": "physics", "D": "art", "E": "art"}
PRACTICE = "P"
LEARNERS = ("1", "4")  # one for each of two shards
STRANGER = "9"
CREDITED = (Status.SUBMITTED, Status.VERIFIED, Status.REJECTED, Status.DECLINED, Status.ERROR)

JUNK = (
    b"",
    b"\xff\x00",
    b"[1, 2",
    b'{"specversion": "1.0"}',
    b'{"specversion":"1.0","id":"j","source":"/lms","type":"exam.burn.v1","data":{}}',
    b'{"specversion":"1.0","id":"j","source":"/lms","type":"exam.attempt.create.v1","data":{"exam":"A"}}',
)


def course(course_id: str) -> CourseUpsert:
    return CourseUpsert(course_id=course_id, name=course_id.title(), provider=COURSES[course_id])


def exam(exam_id: str, *, is_proctored: bool = True, is_active: bool = True) -> ExamUpsert:
    return ExamUpsert(
        exam_id=exam_id,
        course_id=EXAMS[exam_id],
        content_id=f"content-{exam_id}",
        exam_name=f"Exam {exam_id}",
        is_proctored=is_proctored,
        is_practice_exam=exam_id == PRACTICE,
        is_active=is_active,
    )


def learner(user_id: str, full_name: str | None = None) -> LearnerUpsert:
    return LearnerUpsert(
        user_id=user_id, username=f"user-{user_id}", email=f"u{user_id}@example.org", full_name=full_name
    )


_exams = st.sampled_from([*EXAMS, "A", "A", "A", "B", "B", "D"])
_any_exam = _exams | st.just("Z")
_learners = st.sampled_from([LEARNERS[0], LEARNERS[0], LEARNERS[1]])

_updates = st.builds(
    AttemptUpdateStatus,
    exam_id=_exams,
    user_id=_learners,
    to_status=st.sampled_from([*CREDITED, *CREDITED, *CREDITED, *Status, "verifed", None]).map(
        lambda status: None if status is None else str(status)
    ),
    cascade_effects=st.sampled_from([True, True, True, False]),
    if_missing=st.sampled_from(IfMissing),
)
_creations = st.builds(
    AttemptCreate,
    exam_id=_any_exam,
    user_id=_learners | st.just(STRANGER),
    taking_as_proctored=st.booleans(),
)
_removals = st.builds(AttemptRemove, exam_id=_any_exam, user_id=_learners)
_upserts = (
    st.builds(exam, _exams, is_proctored=st.booleans(), is_active=st.booleans())
    | st.builds(learner, _learners, st.sampled_from([None, "Ada"]))
    | st.builds(course, st.sampled_from(sorted(COURSES)))
)

commands: SearchStrategy[CommandData] = st.one_of(
    _updates, _updates, _updates, _updates, _creations, _removals, _upserts
)

_verdicts = st.lists(st.sampled_from(CREDITED), min_size=2, max_size=4)


@st.composite
def _stories(draw: st.DrawFn) -> list[CommandData]:
    """Draw several changes of one attempt."""
    exam_id, user_id = draw(_exams), draw(_learners)
    return [
        AttemptUpdateStatus(exam_id=exam_id, user_id=user_id, to_status=status) for status in draw(_verdicts)
    ]


batches: SearchStrategy[list[CommandData]] = st.lists(commands, min_size=1, max_size=4) | _stories()

SETTING: list[CommandData] = [
    *(course(course_id) for course_id in COURSES),
    *(exam(exam_id) for exam_id in EXAMS),
    *(learner(user_id) for user_id in LEARNERS),
    *(
        AttemptCreate(exam_id=exam_id, user_id=user_id, taking_as_proctored=True)
        for user_id in LEARNERS
        for exam_id in ("A", "B", "D")
    ),
]
"""The commands with which every example begins."""
