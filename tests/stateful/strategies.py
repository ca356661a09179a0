"""Strategies for the commands of an LMS. There are few learners and exams, so that commands interact."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

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
UNBELIEVED = (timedelta(days=3), timedelta(days=-3))
"""How long ago something happened that nobody believes. Only a description may be that old."""
LAST_WEEK = timedelta(days=7)
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


@dataclass(frozen=True, slots=True)
class Act:
    """A command, and how long before it is published it happened. None if the sender does not say."""

    data: CommandData
    ago: timedelta | None = None


def names(exam_id: str, user_id: str, number: int) -> dict[str, str]:
    """Return the names that the sender gives to one of a learner's attempts at an exam."""
    name = f"{exam_id}-{user_id}-{number}"
    return {"attempt_code": name, "external_id": f"vendor-{name}"}


_exams = st.sampled_from([*EXAMS, "A", "A", "A", "B", "B", "D"])
_any_exam = _exams | st.just("Z")
_learners = st.sampled_from([LEARNERS[0], LEARNERS[0], LEARNERS[1]])

_numbers = st.sampled_from([1, 1, 2, 3])
_parts = st.sampled_from([[], [], [], [], ["attempt_code"], ["external_id"], ["attempt_code", "external_id"]])
_statuses = st.sampled_from([*CREDITED, *CREDITED, *CREDITED, *Status, "verifed", None]).map(
    lambda status: None if status is None else str(status)
)


def _optional(**values: SearchStrategy[Any]) -> SearchStrategy[dict[str, Any]]:
    """Draw some of these fields. The others are left out."""
    return st.fixed_dictionaries({}, optional=values)


@st.composite
def _which(draw: st.DrawFn) -> dict[str, Any]:
    """Draw exam and learner, and often a name: that of the live attempt, of another one, or a mixture."""
    exam_id, user_id = draw(_exams), draw(_learners)
    of_exam = draw(st.sampled_from([exam_id, exam_id, exam_id, "A"]))
    named = {part: names(of_exam, user_id, draw(_numbers))[part] for part in draw(_parts)}
    return {"exam_id": exam_id, "user_id": user_id, **named}


_some_statuses = st.lists(st.sampled_from([Status.CREATED, *CREDITED]), max_size=5, unique=True)
_one_status = st.sampled_from(CREDITED).map(lambda status: [status])
_conditions = _optional(
    if_missing=st.sampled_from(IfMissing), from_statuses=st.none() | _some_statuses | _one_status
)
_updates = st.builds(
    lambda which, conditions, asked: AttemptUpdateStatus(**which, **conditions, **asked),
    _which(),
    _conditions,
    st.fixed_dictionaries(
        {"to_status": _statuses}, optional={"cascade_effects": st.sampled_from([True, True, False])}
    ),
)
_creations = st.builds(
    lambda which, proctored: AttemptCreate(**which, taking_as_proctored=proctored), _which(), st.booleans()
) | st.builds(
    AttemptCreate, exam_id=_any_exam, user_id=_learners | st.just(STRANGER), taking_as_proctored=st.booleans()
)
_removals = st.builds(
    lambda which, conditions: AttemptRemove(**which, **conditions), _which(), _conditions
) | st.builds(AttemptRemove, exam_id=_any_exam, user_id=_learners)


def _described_again(
    model: type[CommandData], whole: SearchStrategy[CommandData], required: Collection[str]
) -> SearchStrategy[CommandData]:
    """Draw upserts with some of their optional fields."""

    @st.composite
    def upserts(draw: st.DrawFn) -> CommandData:
        data = draw(whole)
        sent = {name: value for name, value in data if name in required or draw(st.booleans())}
        return model(**sent)

    return upserts()


_upserts = st.one_of(
    _described_again(
        ExamUpsert,
        st.builds(exam, _exams, is_proctored=st.booleans(), is_active=st.booleans()),
        ("exam_id", "course_id", "content_id", "exam_name"),
    ),
    _described_again(
        LearnerUpsert,
        st.builds(learner, _learners, st.sampled_from([None, "Ada"])),
        ("user_id", "username", "email"),
    ),
    _described_again(CourseUpsert, st.builds(course, st.sampled_from(sorted(COURSES))), ("course_id",)),
)

commands: SearchStrategy[CommandData] = st.one_of(
    _updates, _updates, _updates, _updates, _creations, _removals, _upserts
)

_verdicts = st.lists(st.sampled_from(CREDITED), min_size=2, max_size=4)


@st.composite
def _stories(draw: st.DrawFn) -> list[CommandData]:
    """Draw several changes of one attempt, which it calls by its name."""
    which = draw(_which())
    return [AttemptUpdateStatus(**which, to_status=status) for status in draw(_verdicts)]


_ago = st.sampled_from(
    [None, None, timedelta(0), timedelta(minutes=1), timedelta(hours=1), timedelta(hours=5), *UNBELIEVED]
)
"""When commands happened: out of order, and also when nobody believes it."""


@st.composite
def _batches(draw: st.DrawFn) -> list[Act]:
    data = draw(st.lists(commands, min_size=1, max_size=4) | _stories())
    return [Act(one, draw(_ago)) for one in data]


batches: SearchStrategy[list[Act]] = _batches()

SETTING: list[Act] = [
    *(Act(course(course_id), LAST_WEEK) for course_id in COURSES),
    *(Act(exam(exam_id), LAST_WEEK) for exam_id in EXAMS),
    *(Act(learner(user_id), LAST_WEEK) for user_id in LEARNERS),
    *(
        Act(
            AttemptCreate(
                exam_id=exam_id, user_id=user_id, taking_as_proctored=True, **names(exam_id, user_id, 1)
            ),
            timedelta(hours=3),
        )
        for user_id in LEARNERS
        for exam_id in ("A", "B", "D")
    ),
]
"""The commands with which every example begins."""
