"""Connections: what they are given up for, what they are told, and which databases they refuse."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError

from db import wake
from db.connect import looking, make_engine
from db.errors import Failure, UnfitDatabaseError, brief, classify
from tests import engines, standby
from tests.fullqueue import HOLDER, full_queue, small_queue_postgres
from tests.roundtrips import counted

ODD = "Zoë Łukasiewicz 李"
PATIENCE_S = 60
PID = text("SELECT pg_backend_pid()")


@contextmanager
def ours(url: str, *, session_settings: str = "", writes: bool = True) -> Iterator[Engine]:
    """An engine that keeps its connections unless something makes it give them up."""
    engine = make_engine(
        url, application_name="ours", session_settings=session_settings, pre_ping=False, writes=writes
    )
    try:
        yield engine
    finally:
        engine.dispose()


def ask(engine: Engine, question: str) -> object:
    with engine.connect() as connection:
        return connection.scalar(text(question))


@pytest.mark.parametrize("state", ["25006", "53200", "54000", "57P05", "58030", "28000", "42501", "55000"])
def test_what_says_away_gives_every_connection_up(database_url: str, state: str) -> None:
    with ours(database_url) as engine:
        # Given two connections that are kept
        with engine.connect() as one, engine.connect() as another:
            before = {one.scalar(PID), another.scalar(PID)}
        # When one of them meets an error that says that the database cannot serve us now
        with pytest.raises(DBAPIError) as raised, engine.begin() as connection:
            connection.execute(text(f"DO $$ BEGIN RAISE 'no' USING ERRCODE = '{state}'; END $$"))
        assert classify(raised.value) is Failure.UNAVAILABLE
        # Then neither is used again
        with engine.connect() as one, engine.connect() as another:
            assert not before & {one.scalar(PID), another.scalar(PID)}


@pytest.mark.parametrize("state", ["40001", "55P03", "57014", "23505", "22001", "42P01"])
def test_any_other_error_leaves_the_connection(database_url: str, state: str) -> None:
    with ours(database_url) as engine:
        before = ask(engine, "SELECT pg_backend_pid()")
        with pytest.raises(DBAPIError), engine.begin() as connection:
            connection.execute(text(f"DO $$ BEGIN RAISE 'no' USING ERRCODE = '{state}'; END $$"))
        assert ask(engine, "SELECT pg_backend_pid()") == before


@pytest.fixture
def read_only_url(database_url: str) -> Iterator[str]:
    """A database that is read-only unless a session says otherwise, as a standby is."""
    name = make_url(database_url).database
    standby.execute(database_url, f'ALTER DATABASE "{name}" SET default_transaction_read_only = on')
    yield database_url
    standby.execute(
        database_url,
        "SET default_transaction_read_only = off",
        f'ALTER DATABASE "{name}" RESET default_transaction_read_only',
    )


def test_who_writes_is_not_connected_to_what_is_read_only(
    read_only_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ours(read_only_url) as engine, pytest.raises(DBAPIError, match="session is read-only") as raised:
        engine.connect()
    assert classify(raised.value) is Failure.UNAVAILABLE
    # But who reads is, and whoever says so
    with ours(read_only_url, writes=False) as engine:
        assert ask(engine, "SELECT 1") == 1
    with ours(f"{read_only_url}?target_session_attrs=any") as engine:
        assert ask(engine, "SELECT 1") == 1
    monkeypatch.setenv("PGTARGETSESSIONATTRS", "any")
    with ours(read_only_url) as engine:
        assert ask(engine, "SELECT 1") == 1


def test_every_host_that_was_none_is_named() -> None:
    url = "postgresql://nobody@127.0.0.1:1,127.0.0.1:2/none"
    with ours(url) as engine, pytest.raises(DBAPIError) as raised:
        engine.connect()
    line = brief(raised.value)
    assert "port 1 failed" in line
    assert "port 2 failed" in line
    assert "\n" not in line


def test_the_address_may_be_a_list_of_hosts(database_url: str) -> None:
    url = make_url(database_url)
    both = f"127.0.0.1:1,{url.host}:{url.port}"
    address = f"postgresql://{url.username}:{url.password}@{both}/{url.database}"
    with ours(f"{address}?target_session_attrs=read-write") as engine:
        assert ask(engine, "SELECT current_database()") == url.database


def test_what_the_address_and_the_environment_set_stays(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = f"{database_url}?options=-c%20search_path%3Dexams%20-c%20lock_timeout%3D1s"
    # Given settings of ours, and options in the URL
    with ours(address, session_settings="-c lock_timeout=5s -c enable_seqscan=off") as engine:
        assert ask(engine, "SHOW search_path") == "exams"
        # Then ours come last
        assert ask(engine, "SHOW lock_timeout") == "5s"
        assert ask(engine, "SHOW enable_seqscan") == "off"
    with ours(address) as engine:
        assert ask(engine, "SHOW lock_timeout") == "1s"
    # And so it is with those of the environment
    monkeypatch.setenv("PGOPTIONS", "-csearch_path=others")
    with ours(database_url, session_settings="-c lock_timeout=5s") as engine:
        assert ask(engine, "SHOW search_path") == "others"
    with ours(address, session_settings="-c lock_timeout=5s") as engine:
        assert ask(engine, "SHOW search_path") == "exams"


@pytest.mark.parametrize("how", ["variable", "parameter", "options"])
def test_names_arrive_whatever_encoding_the_client_has(
    database_url: str, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = {
        "variable": database_url,
        "parameter": f"{database_url}?client_encoding=latin1",
        "options": f"{database_url}?options=-cclient_encoding%3Dlatin1",
    }[how]
    if how == "variable":
        monkeypatch.setenv("PGCLIENTENCODING", "LATIN1")
    with ours(address, session_settings="-c lock_timeout=5s") as engine, engine.connect() as connection:
        assert connection.scalar(text("SELECT CAST(:name AS text)"), {"name": ODD}) == ODD


@pytest.fixture(params=["SQL_ASCII", "LATIN1"])
def foreign_url(request: pytest.FixtureRequest, postgres_url: str) -> Iterator[str]:
    """An empty database in another encoding."""
    with engines.fresh_database(postgres_url, template="template0", encoding=request.param) as url:
        yield url


def test_a_database_in_another_encoding_is_only_read(foreign_url: str) -> None:
    with ours(foreign_url) as engine, pytest.raises(UnfitDatabaseError, match="ENCODING 'UTF8'") as raised:
        engine.connect()
    assert "\n" not in str(raised.value)
    with ours(foreign_url, writes=False) as engine:
        assert ask(engine, "SELECT 1") == 1


def test_a_full_queue_of_notifications_is_waited_for() -> None:
    with small_queue_postgres() as server, ours(server.url) as engine:
        # Given a queue that is full because a session of somebody else's stands still
        with full_queue(server.url) as pid:
            # When we notify
            with pytest.raises(DBAPIError) as raised, engine.begin() as connection:
                wake.notify(connection)
            # Then we wait, and say what is full and who keeps it so
            assert classify(raised.value) is Failure.UNAVAILABLE
            line = brief(raised.value)
            assert "queue of notifications is 100% full" in line
            assert f"pid {pid} (application {HOLDER}" in line
            assert "\n" not in line
        # And once that session is gone, we go on
        deadline = time.monotonic() + PATIENCE_S
        while not notified(engine):
            assert time.monotonic() < deadline, "still full"


def notified(engine: Engine) -> bool:
    try:
        with engine.begin() as connection:
            wake.notify(connection)
    except DBAPIError:
        return False
    return True


def test_what_is_too_large_is_not_waited_for(database_url: str) -> None:
    # 54000, too: a row that fits into no index
    rows = "SELECT string_agg(md5(number::text), '') FROM generate_series(1, 1000) AS number"
    with ours(database_url) as engine, engine.connect() as connection:
        connection.execute(text("CREATE TEMP TABLE large (name text PRIMARY KEY)"))
        with pytest.raises(DBAPIError) as raised:
            connection.execute(text(f"INSERT INTO large {rows}"))
    assert classify(raised.value) is Failure.DATA


def test_a_look_is_one_round_trip(database_url: str) -> None:
    with counted(database_url, pre_ping=False) as (engine, trips):
        with engine.begin() as connection:
            connection.exec_driver_sql("CREATE TEMPORARY TABLE kept (number int)")
        trips()
        # When somebody looks
        with looking(engine) as connection:
            assert connection.exec_driver_sql("SELECT 1").scalar_one() == 1
        # Then that takes one
        assert trips() == 1
        # and the connection is as it was for who comes next: nothing stays that was not committed
        with engine.connect() as connection:
            connection.exec_driver_sql("INSERT INTO kept VALUES (1)")
        with engine.connect() as connection:
            assert connection.exec_driver_sql("SELECT count(*) FROM kept").scalar_one() == 0
