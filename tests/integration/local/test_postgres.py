"""PostgreSQL from the wheel, on its own folder, whoever runs it."""

import os
import pwd
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import psutil
import psycopg2
import pytest
from psycopg2 import extensions
from sqlalchemy.engine import make_url

from invigilator.local import postgres, unprivileged
from invigilator.local.server import Server
from tests import engines
from worker.errors import ConfigurationError

Start = Callable[[Path], Server]

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root meets this")


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts engines that end with the test."""
    with engines.starter(lambda folder, watch: postgres.start(folder, durable=False, watch=watch)) as start:
        yield start


def connect(running: Server, password: str | None = None) -> extensions.connection:
    url = make_url(running.url).set(drivername="postgresql")
    url = url.set(password=password or url.password)
    return psycopg2.connect(url.render_as_string(hide_password=False))


def query(running: Server, statement: str) -> object:
    with closing(connect(running)) as connection, connection, connection.cursor() as cursor:
        cursor.execute(statement)
        return cursor.fetchone()


def modes(*paths: Path) -> dict[Path, tuple[int, int, int]]:
    chain = {parent for path in paths for parent in (path, *path.parents)}
    return {path: (path.stat().st_mode, path.stat().st_uid, path.stat().st_gid) for path in chain}


def test_nothing_outside_the_folder_changes(tmp_path: Path, start: Start) -> None:
    home = tmp_path / "closed"
    home.mkdir(mode=0o700)
    accounts = Path("/etc/passwd").read_bytes()
    before = modes(home, postgres.binary("postgres"))

    start(home / "postgres")

    assert modes(home, postgres.binary("postgres")) == before
    assert Path("/etc/passwd").read_bytes() == accounts


def test_secrets_and_data_are_closed_to_others(tmp_path: Path, start: Start) -> None:
    running = start(tmp_path / "pg")

    private = [tmp_path / "pg", *(tmp_path / "pg").iterdir()]
    assert {path.name: path.stat().st_mode & 0o077 for path in private if path.stat().st_mode & 0o077} == {}
    password = make_url(running.url).password
    assert isinstance(password, str)
    assert password not in repr(running)
    assert not any(password in word for process in psutil.process_iter() for word in _words(process))


def _words(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def test_a_password_is_asked_for(tmp_path: Path, start: Start) -> None:
    running = start(tmp_path)

    with pytest.raises(psycopg2.OperationalError, match="password authentication failed"):
        connect(running, password="guessed")


def test_it_listens_on_the_loopback_address_and_on_no_socket(tmp_path: Path, start: Start) -> None:
    running = start(tmp_path / ("long" * 40))

    assert query(running, "SHOW unix_socket_directories") == ("",)
    assert query(running, "SHOW listen_addresses") == ("127.0.0.1",)


def test_what_is_committed_survives_kill_9_under_the_same_address(tmp_path: Path) -> None:
    first = postgres.start(tmp_path)
    query(first, "CREATE TABLE kept AS SELECT 42 AS answer; SELECT 1")
    first.process.kill()
    first.process.wait()

    second = postgres.start(tmp_path)
    try:
        assert second.url == first.url
        assert query(second, "SELECT answer FROM kept") == (42,)
    finally:
        second.stop()


def test_a_port_that_somebody_took_is_replaced(tmp_path: Path, start: Start) -> None:
    first = start(tmp_path)
    first.stop()
    with closing(socket.create_server(("127.0.0.1", first.port))):
        second = start(tmp_path)

        assert second.port != first.port
        assert query(second, "SELECT 1") == (1,)


def test_a_pid_file_that_names_an_unrelated_process_is_no_obstacle(tmp_path: Path, start: Start) -> None:
    first = start(tmp_path)
    pid_file = tmp_path / "data" / "postmaster.pid"
    lines = pid_file.read_text().splitlines(keepends=True)
    first.process.kill()
    first.process.wait()

    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as stranger:
        pid_file.write_text("".join([f"{stranger.pid}\n", *lines[1:]]))
        second = start(tmp_path)

        assert query(second, "SELECT 1") == (1,)
        assert stranger.poll() is None


def test_a_server_that_outlived_its_starter_is_replaced(tmp_path: Path, start: Start) -> None:
    leftover = start(tmp_path)

    running = start(tmp_path)

    assert not leftover.is_running()
    assert query(running, "SELECT 1") == (1,)


def test_a_half_made_folder_is_made_anew(tmp_path: Path, start: Start) -> None:
    (tmp_path / "data.new").mkdir()
    (tmp_path / "data.new" / "PG_VERSION").write_text("18")

    assert query(start(tmp_path), "SELECT 1") == (1,)


def test_a_lost_password_is_said_plainly(tmp_path: Path, start: Start) -> None:
    start(tmp_path).stop()
    (tmp_path / "password").unlink()

    with pytest.raises(ConfigurationError, match="password is missing: restore it"):
        postgres.start(tmp_path)


def test_why_it_does_not_start_is_said_in_one_line(tmp_path: Path, start: Start) -> None:
    start(tmp_path).stop()
    (tmp_path / "data" / "PG_VERSION").write_text("9\n")

    with pytest.raises(ConfigurationError, match=r"PostgreSQL did not start: .*FATAL.* \(log: "):
        postgres.start(tmp_path)


@needs_root
def test_root_without_user_namespaces_uses_a_capability(
    tmp_path: Path, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    start(tmp_path / "pg").stop()  # with a user namespace: the files are root's
    find = shutil.which
    monkeypatch.setattr(shutil, "which", lambda name: None if name == "unshare" else find(name))
    probe = tmp_path / "probe"
    probe.mkdir()
    try:
        unprivileged.command_prefix(postgres.binary("initdb"), probe)
    except ConfigurationError:
        pytest.skip("no setpriv, or no capabilities to hand on")
    before = modes(tmp_path)

    running = start(tmp_path / "pg")

    assert query(running, "SELECT 1") == (1,)
    assert modes(tmp_path) == before
    assert (tmp_path / "pg" / "data").owner() == "nobody"


@needs_root
def test_root_without_either_is_told_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)

    with pytest.raises(ConfigurationError, match="set INVIGILATOR_DATABASE_URL"):
        postgres.start(tmp_path)


# This Python may be in a closed folder; the system's of the same version does as well.
PYTHONS = (sys.executable, f"/usr/bin/python{sys.version_info.major}.{sys.version_info.minor}")
_AS_SOMEBODY = """
import sys; from pathlib import Path
from invigilator.local import postgres
postgres.start(Path(sys.argv[1]) / "postgres").stop()
print("it ran")
"""


@needs_root
def test_an_ordinary_user_simply_runs_it() -> None:
    nobody = pwd.getpwnam("nobody")
    run = partial(
        subprocess.run,
        user=nobody.pw_uid,
        group=nobody.pw_gid,
        extra_groups=[],
        env={"PYTHONPATH": os.pathsep.join(sys.path), "PATH": os.defpath},
        capture_output=True,
        text=True,
    )
    usable = [
        python
        for python in PYTHONS
        if not run(["sh", "-c", f"{python} -c 'import invigilator.local.postgres'"]).returncode
    ]
    if not usable:
        pytest.skip("this clone, or its Python, is closed to other users")
    home = Path(run(["mktemp", "-d"]).stdout.strip())
    try:
        result = run([usable[0], "-c", _AS_SOMEBODY, str(home)])
    finally:
        shutil.rmtree(home)

    assert result.stdout == "it ran\n", result.stderr
