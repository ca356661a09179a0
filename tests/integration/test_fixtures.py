"""The fixtures keep tests apart."""

import fcntl
import subprocess
import sys
from pathlib import Path

import pytest
import redis
from sqlalchemy import Engine, NullPool, create_engine, text
from sqlalchemy.orm import Session

from tests.turns import my_turn


@pytest.mark.parametrize("run", [1, 2])
def test_what_a_session_commits_is_gone_in_the_next_test(session: Session, run: int) -> None:
    session.execute(text("CREATE TABLE leftovers (id int)"))
    session.commit()
    session.execute(text("INSERT INTO leftovers VALUES (1)"))
    session.rollback()

    assert session.scalar(text("SELECT count(*) FROM leftovers")) == 0


@pytest.mark.parametrize("run", [1, 2])
def test_every_test_has_its_own_database(engine: Engine, run: int) -> None:
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE leftovers (id int)"))


def test_a_database_is_utf8_and_sorts_the_same_everywhere(engine: Engine) -> None:
    with engine.connect() as connection:
        encoding, provider, locale = connection.execute(
            text(
                "SELECT pg_encoding_to_char(encoding), datlocprovider, datlocale"
                " FROM pg_database WHERE datname = current_database()"
            )
        ).one()

    assert (encoding, provider, locale) == ("UTF8", "b", "C.UTF-8")


def test_an_empty_database_has_no_tables(empty_database_url: str) -> None:
    with create_engine(empty_database_url, poolclass=NullPool).connect() as connection:
        tables = connection.scalar(text("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'"))
    assert tables == 0


@pytest.mark.parametrize("run", [1, 2])
def test_every_test_finds_valkey_empty(valkey_url: str, run: int) -> None:
    client = redis.Redis.from_url(valkey_url)
    with client:
        assert client.dbsize() == 0
        client.set("left", "over")


def test_one_at_a_time_and_whoever_dies_lets_the_next_one_in(tmp_path: Path) -> None:
    # Given a process that is in, and does not come out
    file = tmp_path / "turns"
    script = (
        "import sys, pathlib\nfrom tests.turns import my_turn\n"
        "with my_turn(pathlib.Path(sys.argv[1])): print('in', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", script, str(file)]
    root = Path(__file__).parents[2]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=root) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == b"in\n"
        # When another one asks, then it would have to wait
        with file.open("a") as held, pytest.raises(BlockingIOError):
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # And when the first is killed, then it is let in
        first.kill()
    with my_turn(file):
        pass
