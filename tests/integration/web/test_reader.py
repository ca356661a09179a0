"""How the API asks the database: in one round trip, with limits, over connections that may be lost."""

from collections.abc import Callable
from contextlib import closing
from functools import partial
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError, OperationalError

from db import awaited, event_log, lookups, timeline
from events.vocabulary import Status
from invigilator.web.reading import Reader
from tests import sample_commands as c
from tests.roundtrips import counted

SETTINGS = "SELECT current_setting('statement_timeout'), current_setting('transaction_read_only')"
AFTER = UUID(int=1)
QUESTIONS: dict[str, Callable[[Connection], Any]] = {
    "an attempt": partial(lookups.attempt_history, code="a1"),
    "attempts": partial(lookups.attempts, limit=10),
    "attempts of a course": partial(lookups.attempts, course_id="c", status=Status.CREATED, limit=10),
    "attempts of a learner": partial(lookups.attempts, user_id="42", course_id="c", after=AFTER, limit=10),
    "a command": partial(lookups.command, source="/lms", command_id="none"),
    "a timeline": partial(timeline.read, user_id="42", mail_kind="m", after=None, limit=10),
    "events": partial(event_log.page, subscriber="api", after=None, rows=10),
    "awaited commands": partial(awaited.look, commands=[c.received(c.create("A")).command]),
}


def settings(connection: Connection) -> tuple[str, str]:
    [found] = connection.exec_driver_sql(SETTINGS)
    return found[0], found[1]


def test_every_question_is_one_round_trip(database_url: str) -> None:
    with counted(database_url, pre_ping=False, autocommit=True) as (engine, trips):
        reader = Reader(engine)
        reader.ask(settings)  # connects
        trips()
        for name, question in QUESTIONS.items():
            reader.ask(question)
            assert (name, trips()) == (name, 1)


def test_a_question_has_limits_that_the_session_does_not_keep(unasked: Engine) -> None:
    assert Reader(unasked).ask(settings) == ("10s", "on")
    # psycopg2's own connection, because the engine's would have the limits again
    connection = unasked.raw_connection()
    with closing(connection.cursor()) as cursor:
        cursor.execute(SETTINGS)
        assert cursor.fetchone() == ("0", "off")
    connection.close()


def test_nothing_can_be_changed(unasked: Engine) -> None:
    with pytest.raises(DBAPIError, match="read-only transaction"):
        Reader(unasked).ask(lambda connection: connection.exec_driver_sql("DELETE FROM subscribers"))


def test_a_question_over_a_connection_that_was_lost_is_asked_again(engine: Engine, unasked: Engine) -> None:
    # Given a reader with a connection that the server has ended
    reader = Reader(unasked)
    reader.ask(settings)
    end = "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE application_name = 'reads'"
    with engine.connect() as connection:
        assert connection.execute(text(end)).scalars().all() == [True]
    # Then whoever asks gets an answer
    assert reader.ask(settings) == ("10s", "on")


def test_a_question_is_asked_again_once(unasked: Engine) -> None:
    asked: list[str] = []

    def ends_the_session(connection: Connection) -> None:
        asked.append("")
        connection.exec_driver_sql("SELECT pg_terminate_backend(pg_backend_pid())")

    with pytest.raises(OperationalError):
        Reader(unasked).ask(ends_the_session)
    assert len(asked) == 2


def test_an_error_that_would_come_again_is_not_asked_for_again(unasked: Engine) -> None:
    asked: list[str] = []

    def divides(connection: Connection) -> None:
        asked.append("")
        connection.exec_driver_sql("SELECT 1 / 0")

    with pytest.raises(DBAPIError, match="division by zero"):
        Reader(unasked).ask(divides)
    assert len(asked) == 1
