"""Strategies for commands that are late, out of order, and about other attempts than the live one."""

from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from db.ids import Receipt, new_receipt
from events.commands import Command, CommandData, CourseUpsert, ExamUpsert
from events.vocabulary import IfMissing, Status
from tests import sample_commands as c

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
EXAMS = ("A", "B", "C")
PROVIDER = "acme"
YESTERDAY, LONG_AGO = NOW - timedelta(hours=20), NOW - timedelta(days=365)

Session = list[tuple[CommandData, datetime | None]]
"""Commands with the times that their sender says, in the order in which they arrive."""
SETUP: Session = [
    (c.course(PROVIDER), LONG_AGO),
    *((c.exam(exam_id), LONG_AGO) for exam_id in EXAMS),
    (c.learner(), LONG_AGO),
    (c.create("A", attempt_code="first", external_id="vendor", taking_as_proctored=True), YESTERDAY),
    (c.create("B", external_id="other"), YESTERDAY),
]
"""With what every delivery begins."""
Delivery = list[tuple[Command, Receipt]]
"""Commands with the moments at which they are handled."""


def _fields(**values: SearchStrategy[Any]) -> SearchStrategy[dict[str, Any]]:
    """Draw some of these fields. The others are left out."""
    return st.fixed_dictionaries({}, optional=values)


_exam_ids = st.sampled_from(["A", "A", "A", "B", "C"])
_names = st.one_of(
    st.just({}),
    _fields(
        attempt_code=st.sampled_from(["first", "first", "second"]),
        external_id=st.sampled_from(["vendor", "vendor", "other"]),
    ),
)
_conditions = st.one_of(
    st.just({}),
    _fields(
        from_statuses=st.none() | st.lists(st.sampled_from(Status), max_size=8, unique=True),
        if_missing=st.sampled_from(IfMissing),
    ),
)
_asked = st.sampled_from(
    [
        *Status,
        Status.STARTED,
        Status.SUBMITTED,
        Status.VERIFIED,
        Status.DECLINED,
        Status.DECLINED,
        "no status",
    ]
)


@st.composite
def _commands(draw: st.DrawFn) -> CommandData:
    what = draw(st.sampled_from(["create", *["update"] * 5, "remove", "describe"]))
    names = draw(_names)
    match what:
        case "create":
            options = draw(_fields(taking_as_proctored=st.booleans()))
            return c.create(draw(_exam_ids), draw(st.sampled_from(["42", "42", "43"])), **names, **options)
        case "update":
            options = draw(_conditions) | draw(_fields(cascade_effects=st.booleans()))
            return c.update(draw(_exam_ids), draw(_asked), **names, **options)
        case "remove":
            return c.remove(draw(_exam_ids), **names, **draw(_conditions))
        case _:
            return draw(_descriptions)


_descriptions: SearchStrategy[CommandData] = st.one_of(
    st.builds(
        lambda exam_id, course_id, content_id, options: ExamUpsert(
            exam_id=exam_id, course_id=course_id, content_id=content_id, exam_name="again", **options
        ),
        _exam_ids,
        st.sampled_from([c.COURSE, c.COURSE, c.COURSE, "another"]),
        st.sampled_from(["content-A", "content-B", "x"]),
        _fields(is_active=st.booleans(), is_proctored=st.booleans(), is_practice_exam=st.booleans()),
    ),
    st.builds(
        lambda options: CourseUpsert(course_id=c.COURSE, **options),
        _fields(name=st.none(), provider=st.sampled_from([None, PROVIDER, "unheard of"])),
    ),
    st.builds(c.update, st.just("unknown"), st.just("started")),
    st.builds(c.learner),
)

times = st.one_of(
    st.none(),
    # From before they are believed to later than they are believed.
    st.integers(-26 * 60, 3).map(lambda minutes: NOW + timedelta(minutes=minutes)),
    st.sampled_from([NOW - timedelta(days=1), NOW + timedelta(seconds=60), NOW - timedelta(days=400)]),
)
sessions: SearchStrategy[Session] = st.lists(st.tuples(_commands(), times), min_size=8, max_size=25)


def delivery(session: Session) -> Delivery:
    """Deliver a session after `SETUP`, a second between two commands."""
    return [
        (Command("/tests", str(number), one, time), new_receipt(NOW + timedelta(seconds=number)))
        for number, (one, time) in enumerate([*SETUP, *session])
    ]
