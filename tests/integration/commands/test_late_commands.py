"""Properties of late commands: whatever the order and the times of delivery, history makes sense."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import groupby, pairwise
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, text

from db import batch
from db.ids import Receipt, new_receipt
from db.inbox import Handled
from events.commands import Command, CommandData
from events.vocabulary import IfMissing, Status
from tests import sample_commands as c
from worker.commands.handler import Handler
from worker.policies import Policies
from worker.rules.policy import PRESETS

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
EXAMS = ("A", "B")
SETUP: list[CommandData] = [c.course("acme"), *(c.exam(exam_id) for exam_id in EXAMS), c.learner()]
CODES = st.sampled_from(["first", "second", None])
WHICH = {
    "attempt_code": CODES,
    "external_id": st.sampled_from(["vendor", None, None]),
    "if_missing": st.sampled_from(IfMissing),
}

exam_ids = st.sampled_from(EXAMS)
data: st.SearchStrategy[CommandData] = st.one_of(
    st.builds(
        c.create,
        exam_ids,
        attempt_code=CODES,
        external_id=st.sampled_from(["vendor", None]),
        taking_as_proctored=st.booleans(),
    ),
    st.builds(c.update, exam_ids, st.sampled_from(Status), **WHICH),
    st.builds(c.update, exam_ids, st.sampled_from([Status.STARTED, Status.SUBMITTED])),
    st.builds(c.remove, exam_ids, **WHICH),
    st.builds(c.exam, exam_ids, is_active=st.booleans()),
    st.builds(c.exam, exam_ids, content_id=st.sampled_from("xyz")),
    st.builds(c.course, st.sampled_from(["acme", None])),
)
# From before they are believed to later than they are believed.
times = st.none() | st.integers(-26 * 60, 3).map(lambda minutes: NOW + timedelta(minutes=minutes))
sessions = st.lists(st.tuples(data, times), max_size=20)


@dataclass(frozen=True, slots=True)
class Day:
    """Commands with the moments at which they are handled."""

    commands: list[tuple[Command, Receipt]]

    @classmethod
    def of(cls, session: Sequence[tuple[CommandData, datetime | None]]) -> "Day":
        everything = [*((one, None) for one in SETUP), *session]
        return cls(
            [
                (Command("/tests", str(number), one, time), new_receipt(NOW + timedelta(seconds=number)))
                for number, (one, time) in enumerate(everything)
            ]
        )


def handler() -> Handler:
    return Handler(Policies(providers={"acme": PRESETS["platform"]}), instructor=True)


@contextmanager
def forgotten(connection: Connection) -> Iterator[None]:
    """Undo what this block writes."""
    savepoint = connection.begin_nested()
    try:
        yield
    finally:
        savepoint.rollback()


def play(connection: Connection, day: Day, size: int) -> list[Handled]:
    """Handle a day's commands in batches of some size."""
    outcomes: list[Handled] = []
    for start in range(0, len(day.commands), size):
        commands = day.commands[start : start + size]
        unit_of_work, handled = handler().decide(
            connection, commands, batch.lock_learners(connection, ["42"]), NOW
        )
        unit_of_work.write(connection)
        outcomes += handled
    return outcomes


def rows(connection: Connection, query: str) -> list[dict[str, Any]]:
    return [dict(row) for row in connection.execute(text(query)).mappings()]


def record(connection: Connection) -> dict[str, list[dict[str, Any]]]:
    """Everything that the commands have written, but the database's own times and numbers."""
    return {
        "courses": rows(connection, "SELECT * FROM courses ORDER BY course_id"),
        "exams": rows(connection, "SELECT * FROM exams ORDER BY exam_id"),
        "learners": rows(connection, "SELECT * FROM learners ORDER BY user_id"),
        "attempts": rows(connection, "SELECT * FROM attempts ORDER BY id"),
        "transitions": rows(connection, "SELECT * FROM transitions ORDER BY attempt_id, version"),
        "effects": rows(
            connection,
            "SELECT id, kind, state, attempt_id, target, payload, source, command_id"
            " FROM effects ORDER BY sequence",
        ),
    }


examples = settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])


@examples
@given(sessions, st.integers(1, 25))
def test_history_never_runs_backwards(
    connection: Connection, session: list[tuple[CommandData, datetime | None]], size: int
) -> None:
    with forgotten(connection):
        play(connection, Day.of(session), size)
        found = record(connection)
    for attempt in found["attempts"]:
        moments = [attempt["created_at"], attempt["started_at"], attempt["completed_at"]]
        known = [moment for moment in moments if moment is not None]
        assert known == sorted(known)
    for _, history in groupby(found["transitions"], key=lambda row: row["attempt_id"]):
        steps = list(history)
        assert [step["version"] for step in steps] == list(range(1, len(steps) + 1))
        assert [step["at"] for step in steps] == sorted(step["at"] for step in steps)
        for before, after in pairwise(steps):
            assert before["to_status"] == after["from_status"]
            assert before["recorded_at"] <= after["recorded_at"]


@examples
@given(sessions, st.integers(2, 25))
def test_a_batch_gives_what_the_same_commands_give_one_by_one(
    connection: Connection, session: list[tuple[CommandData, datetime | None]], size: int
) -> None:
    day = Day.of(session)
    found = []
    for number in (1, size):
        with forgotten(connection):
            outcomes = play(connection, day, number)
            found.append((outcomes, record(connection)))
    assert found[0] == found[1]


@examples
@given(st.permutations([0, 1, 2, 3, 4]), st.lists(times, min_size=5, max_size=5))
def test_a_sitting_that_is_delivered_in_any_order_is_not_started_after_it_was_submitted(
    connection: Connection, order: list[int], moments: list[datetime | None]
) -> None:
    sitting: list[CommandData] = [
        c.create("A", attempt_code="first"),
        c.update("A", "started", attempt_code="first"),
        c.update("A", "ready_to_submit", attempt_code="first"),
        c.update("A", "submitted", attempt_code="first"),
        c.update("A", "verified", attempt_code="first"),
    ]
    with forgotten(connection):
        play(connection, Day.of([(sitting[number], moments[number]) for number in order]), 3)
        [attempt] = record(connection)["attempts"]
    if attempt["started_at"] is not None and attempt["completed_at"] is not None:
        assert attempt["created_at"] <= attempt["started_at"] <= attempt["completed_at"]
