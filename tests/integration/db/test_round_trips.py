"""Sessions that make fewer round trips keep every promise of a transaction."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError, IntegrityError

from db import prepared
from db.connect import looking, make_engine, reading
from db.round_trips import flush, later
from tests.roundtrips import counted

ADD = "INSERT INTO kept VALUES (%(number)s)"
REFUSED = {"number": -1}


@contextmanager
def with_a_table(database_url: str, session_settings: str) -> Iterator[tuple[Engine, Callable[[], int]]]:
    """An engine with a table, and what counts its round trips."""
    with counted(database_url, pre_ping=False, session_settings=session_settings) as (engine, trips):
        with engine.begin() as connection:
            connection.exec_driver_sql("CREATE TABLE kept (number int PRIMARY KEY CHECK (number >= 0))")
        trips()
        yield engine, trips


@pytest.fixture(params=[prepared.SESSION_SETTINGS, ""], ids=["its own session", "a pooler's"])
def session(request: pytest.FixtureRequest, database_url: str) -> Iterator[Engine]:
    with with_a_table(database_url, request.param) as (engine, _):
        yield engine


@pytest.fixture
def shared(database_url: str) -> Iterator[tuple[Engine, Callable[[], int]]]:
    """An engine whose sessions are its own, and what counts its round trips."""
    with with_a_table(database_url, prepared.SESSION_SETTINGS) as both:
        yield both


def kept(engine: Engine) -> list[int]:
    with looking(engine) as connection:
        return list(connection.exec_driver_sql("SELECT number FROM kept ORDER BY number").scalars())


def add(connection: Connection, *numbers: int) -> None:
    for number in numbers:
        later(connection, ADD, {"number": number})


def test_what_needs_no_answer_takes_no_round_trip(shared: tuple[Engine, Callable[[], int]]) -> None:
    engine, trips = shared
    with engine.begin() as connection:
        add(connection, 1, 2)
        # Then the next statement brings them along, and sees what they did
        assert connection.exec_driver_sql("SELECT count(*) FROM kept").scalar_one() == 2
        assert trips() == 1
        add(connection, 3)
    # and COMMIT brings the rest
    assert trips() == 1
    # and a transaction that only writes is one message
    with engine.begin() as connection:
        add(connection, 4)
    assert trips() == 1
    # and one that does nothing is none
    with engine.begin():
        pass
    assert trips() == 0
    assert kept(engine) == [1, 2, 3, 4]


Step = Callable[[Connection], object]


def now(statement: str, **values: int) -> Step:
    return lambda connection: connection.exec_driver_sql(statement, values)


def waiting(*numbers: int) -> Step:
    return lambda connection: add(connection, *numbers)


def give_up(_connection: Connection) -> None:
    raise KeyError


@pytest.mark.parametrize(
    ("error", "steps"),
    [
        pytest.param(DBAPIError, [waiting(1), now("SELECT 1 / 0")], id="the next statement fails"),
        pytest.param(IntegrityError, [waiting(1, -1), now(ADD, number=2)], id="what waits for it fails"),
        pytest.param(IntegrityError, [now(ADD, number=1), waiting(-1)], id="what waits for COMMIT fails"),
        pytest.param(KeyError, [waiting(1), give_up], id="the program fails before anything is sent"),
        pytest.param(
            DBAPIError,
            [waiting(1), now("SELECT pg_terminate_backend(pg_backend_pid())")],
            id="the session is lost",
        ),
    ],
)
def test_a_transaction_is_committed_with_what_waits_or_not_at_all(
    session: Engine, error: type[Exception], steps: Sequence[Step]
) -> None:
    with pytest.raises(error):
        in_a_transaction(session, steps)
    # Then nothing of it is there, and the next transaction is a good one
    in_a_transaction(session, [waiting(3)])
    assert kept(session) == [3]


def committed(connection: Connection, steps: Sequence[Step]) -> None:
    for step in steps:
        step(connection)
    connection.commit()


def in_a_transaction(engine: Engine, steps: Sequence[Step]) -> None:
    with engine.begin() as connection:
        for step in steps:
            step(connection)


def test_a_transaction_begins_with_its_first_statement_and_ends(session: Engine) -> None:
    with session.connect() as connection:
        connection.exec_driver_sql(ADD, {"number": 1})
        connection.rollback()
        connection.exec_driver_sql(ADD, {"number": 2})
        connection.commit()
        connection.exec_driver_sql(ADD, {"number": 3})
    # Whoever leaves it open rolls back
    assert kept(session) == [2]


def test_nothing_waits_for_who_looks(session: Engine) -> None:
    with looking(session) as connection:
        add(connection, 1)
        assert kept(session) == [1]
    # and afterwards the connection has transactions again
    with session.connect() as connection:
        connection.exec_driver_sql(ADD, {"number": 2})
    assert kept(session) == [1]


def test_two_statements_of_a_repeatable_read_see_one_moment(session: Engine) -> None:
    with session.connect() as connection:
        snapshot = connection.execution_options(isolation_level="REPEATABLE READ")
        assert snapshot.exec_driver_sql("SELECT count(*) FROM kept").scalar_one() == 0
        with session.begin() as other:
            add(other, 1)
        assert snapshot.exec_driver_sql("SELECT count(*) FROM kept").scalar_one() == 0
    assert kept(session) == [1]


def test_who_only_reads_cannot_write(session: Engine) -> None:
    with reading(session) as connection, pytest.raises(DBAPIError, match="read-only"):
        connection.exec_driver_sql(ADD, {"number": 1})
    # and who comes next can
    with session.begin() as connection:
        add(connection, 2)
    assert kept(session) == [2]


@pytest.mark.parametrize("level", ["read uncommitted", "read committed", "repeatable read", "serializable"])
def test_a_database_may_have_another_isolation_level(database_url: str, session: Engine, level: str) -> None:
    with session.connect() as connection:
        name = connection.exec_driver_sql("SELECT current_database()").scalar_one()
    set_level = f"ALTER DATABASE {name} SET default_transaction_isolation = '{level}'"
    in_a_transaction(session, [now(set_level)])
    settings = prepared.SESSION_SETTINGS
    engine = make_engine(database_url, application_name="tests", session_settings=settings, pre_ping=False)
    assert kept(engine) == []
    # Then a transaction has it, also after a look, which has had none
    with engine.connect() as connection:
        assert connection.exec_driver_sql("SHOW transaction_isolation").scalar_one() == level
    engine.dispose()


DEFERRED = (
    "ALTER TABLE kept ADD CONSTRAINT once EXCLUDE USING btree ((0) WITH =) DEFERRABLE INITIALLY DEFERRED"
)


@pytest.mark.parametrize(
    "steps", [[now(DEFERRED), waiting(1, 2)], [now("SELECT"), waiting(1, -1)]], ids=["COMMIT", "what waits"]
)
def test_a_commit_that_fails_leaves_nothing_open(session: Engine, steps: Sequence[Step]) -> None:
    with session.connect() as connection, pytest.raises(IntegrityError):
        committed(connection, steps)
    # Then whoever gets the session next begins a transaction
    in_a_transaction(session, [now("SELECT"), waiting(3)])
    assert kept(session) == [3]


def test_a_transaction_whose_first_message_cannot_be_read_is_over(session: Engine) -> None:
    with session.connect() as connection, connection.begin():
        add(connection, 1)
        with pytest.raises(DBAPIError):
            connection.exec_driver_sql("SELEKT")
        # Then whoever goes on regardless is told
        with pytest.raises(DBAPIError, match=r"has not begun|transaction is aborted"):
            connection.exec_driver_sql(ADD, {"number": 2})
        connection.rollback()
    assert kept(session) == []


def test_what_begins_a_transaction_does_not_wait(session: Engine) -> None:
    with session.connect() as connection:
        add(connection, 1)
        connection.commit()
    assert kept(session) == [1]


def test_what_waits_can_be_run_now(session: Engine) -> None:
    with pytest.raises(IntegrityError), session.begin() as connection:
        refused_now(connection)
    assert kept(session) == []


def refused_now(connection: Connection) -> None:
    add(connection, 1, -1)
    flush(connection)


def test_a_statement_that_ends_with_a_comment_hides_none(session: Engine) -> None:
    with session.begin() as connection:
        later(connection, f"{ADD} -- the first", {"number": 1})
        add(connection, 2)
    assert kept(session) == [1, 2]


@pytest.mark.parametrize("way", ["executemany", "copy_expert", "copy_from", "copy_to", "callproc"])
def test_what_would_not_be_in_the_transaction_is_refused(
    shared: tuple[Engine, Callable[[], int]], way: str
) -> None:
    engine, _ = shared
    with engine.connect() as connection:
        psycopg: Any = connection.connection.dbapi_connection
        with psycopg.cursor() as cursor, pytest.raises(NotImplementedError, match="use execute"):
            getattr(cursor, way)(ADD, [{"number": 1}])
    assert kept(engine) == []


def test_rows_are_not_streamed(shared: tuple[Engine, Callable[[], int]]) -> None:
    engine, _ = shared
    with engine.connect() as connection, pytest.raises(DBAPIError, match="named cursor"):
        connection.execution_options(yield_per=10).execute(text("SELECT number FROM kept"))
