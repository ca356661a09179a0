"""Late commands on a real PostgreSQL: a batch gives what the same commands give one by one."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, text

from db import batch
from db.inbox import Handled
from tests.unit.commands.sessions import NOW, PROVIDER, Delivery, Session, delivery, sessions
from worker.commands import command_types
from worker.commands.handler import Handler
from worker.policies import Policies
from worker.rules.policy import PRESETS

HANDLER = Handler(Policies(providers={PROVIDER: PRESETS["platform"]}), instructor=True)


@contextmanager
def forgotten(connection: Connection) -> Iterator[None]:
    """Undo what this block writes."""
    savepoint = connection.begin_nested()
    try:
        yield
    finally:
        savepoint.rollback()


def play(connection: Connection, commands: Delivery, size: int) -> list[Handled]:
    """Handle commands in batches of some size."""
    outcomes: list[Handled] = []
    for start in range(0, len(commands), size):
        some = commands[start : start + size]
        needs = command_types.needs_of(command for command, _ in some)
        found = batch.lock_and_read(connection, ["42", "43"], needs)
        unit_of_work, handled = HANDLER.decide(some, found, NOW)
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
            "SELECT id, kind, state, attempt_id, target, order_key, payload, source, command_id"
            " FROM effects ORDER BY sequence",
        ),
    }


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sessions, st.integers(2, 30))
def test_a_batch_gives_what_the_same_commands_give_one_by_one(
    connection: Connection, session: Session, size: int
) -> None:
    commands = delivery(session)
    found = []
    for number in (1, size):
        with forgotten(connection):
            outcomes = play(connection, commands, number)
            found.append((outcomes, record(connection)))
    assert found[0] == found[1]
