"""A forked program is like one that a shell has started, and does not depend on the life of its server."""

import importlib.util
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from invigilator.local.forkserver import PRELOADED, UNKNOWN_STATUS, Forked, ForkServer, Program
from invigilator.local.liveness import is_alive

FINDS_TESTS = {"PYTHONPATH": str(Path(__file__).parents[3])}
PATIENCE_S = 150
SERVER = "tests.integration.local.bare_forkserver"
PROGRAM = "tests.integration.local.forked_program"


@pytest.fixture(scope="module")
def forks() -> Iterator[ForkServer]:
    with ForkServer(SERVER) as forks:
        yield forks


@pytest.fixture
def own_forks() -> Iterator[ForkServer]:
    """A server that the test may kill."""
    with ForkServer(SERVER) as forks:
        yield forks


def begin(forks: ForkServer, folder: Path, argument: str) -> Forked:
    program = Program([PROGRAM, argument], {"ONE": "1"}, str(folder))
    with (folder / "output").open("wb") as output, (folder / "errors").open("wb") as errors:
        return forks.start(program, output.fileno(), errors.fileno())


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


def test_a_program_finds_what_it_would_find_in_a_shell(forks: ForkServer, tmp_path: Path) -> None:
    status = begin(forks, tmp_path, "3").wait(PATIENCE_S)

    line, end = (tmp_path / "output").read_text().splitlines()
    assert json.loads(line) == {
        "arguments": ["3"],
        "folder": str(tmp_path),
        "input": "",
        "leads": True,
        "variables": {"ONE": "1"},
    }
    assert (status, end) == (3, "the end")
    assert (tmp_path / "errors").read_text() == "an error\n"


@pytest.mark.parametrize(
    ("argument", "status", "output", "error"),
    [
        ("thread", 0, ["a thread", "the end"], "an error"),
        ("text", 1, ["the end"], "a last word"),
        ("error", 1, ["the end"], "ValueError: a mistake"),
    ],
)
def test_it_ends_as_any_other(
    forks: ForkServer, tmp_path: Path, argument: str, status: int, output: list[str], error: str
) -> None:
    ended = begin(forks, tmp_path, argument).wait(PATIENCE_S)

    assert ended == status
    assert (tmp_path / "output").read_text().splitlines()[1:] == output
    assert (tmp_path / "errors").read_text().splitlines()[-1] == error


def test_its_command_line_names_it(forks: ForkServer, tmp_path: Path) -> None:
    process = begin(forks, tmp_path, "stay")
    until(lambda: (tmp_path / "errors").read_text() != "")

    title = " ".join(psutil.Process(process.pid).cmdline())
    process.send_signal(signal.SIGKILL)
    process.wait(PATIENCE_S)

    assert title.strip() == f"{PROGRAM} stay"


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 7), (signal.SIGKILL, -9)])
def test_a_signal_reaches_it_and_not_its_server(
    forks: ForkServer, tmp_path: Path, number: signal.Signals, status: int
) -> None:
    process = begin(forks, tmp_path, "stay")
    until(lambda: (tmp_path / "errors").read_text() != "")
    assert process.poll() is None
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0)

    process.send_signal(number)

    assert process.wait(PATIENCE_S) == status
    assert process.poll() == status
    process.send_signal(number)  # does nothing
    assert forks.process.poll() is None


def test_kill_9_of_the_server_leaves_its_programs_running(own_forks: ForkServer, tmp_path: Path) -> None:
    # Given a program whose server was killed
    process = begin(own_forks, tmp_path, "stay")
    own_forks.process.kill()
    own_forks.finish()
    # When another is wanted
    with pytest.raises(OSError, match=r"Broken pipe|reset by peer"):
        begin(own_forks, tmp_path, "0")
    # Then it takes a new server, and the first program still runs
    own_forks.renew()
    assert process.poll() is None
    assert begin(own_forks, tmp_path, "4").wait(PATIENCE_S) == 4
    # And how that one ends nobody knows
    process.send_signal(signal.SIGKILL)
    assert process.wait(PATIENCE_S) == UNKNOWN_STATUS


def test_a_program_that_ends_without_any_server_has_ended(own_forks: ForkServer, tmp_path: Path) -> None:
    process = begin(own_forks, tmp_path, "stay")
    own_forks.process.kill()
    own_forks.finish()

    process.send_signal(signal.SIGKILL)

    assert process.wait(PATIENCE_S) == UNKNOWN_STATUS


def test_a_server_that_stands_still_is_given_up(tmp_path: Path) -> None:
    with ForkServer(SERVER, patience_s=0.05) as forks:
        forks.process.send_signal(signal.SIGSTOP)
        with pytest.raises(TimeoutError, match="timed out"):
            begin(forks, tmp_path, "0")
        assert forks.process.wait(PATIENCE_S) == -signal.SIGKILL


def test_a_program_does_not_begin_before_somebody_watches_it(tmp_path: Path) -> None:
    # Given somebody who is killed when a program has been forked, before anybody else knows
    code = """if True:
        import os, signal, sys
        from invigilator.local.forkserver import ForkServer, Program
        def late(pid):
            print(pid, flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
        program = Program([sys.argv[1], "0"], {}, "/")
        output = os.open(sys.argv[2], os.O_WRONLY | os.O_CREAT)
        ForkServer(sys.argv[3]).start(program, output, output, late)
    """
    command = [sys.executable, "-c", code, PROGRAM, str(tmp_path / "output"), SERVER]
    with subprocess.Popen(command, env=FINDS_TESTS, stdout=subprocess.PIPE, text=True) as killed:
        assert killed.stdout is not None
        pid = int(killed.stdout.readline())
    # When the forked process has ended
    until(lambda: not psutil.pid_exists(pid) or not is_alive(psutil.Process(pid)))
    # Then it has run nothing
    assert (tmp_path / "output").read_text() == ""


def test_the_server_ends_with_whoever_has_started_it() -> None:
    code = f"""if True:
        from invigilator.local.forkserver import ForkServer
        import os
        print(ForkServer({SERVER!r}).process.pid, flush=True)
        os.kill(os.getpid(), 9)
    """
    ran = subprocess.run(
        [sys.executable, "-c", code], env=FINDS_TESTS, stdout=subprocess.PIPE, text=True, check=False
    )
    pid = int(ran.stdout)

    until(lambda: not psutil.pid_exists(pid) or not is_alive(psutil.Process(pid)))


def test_what_is_imported_exists() -> None:
    # The server leaves out what is not installed, so it would not complain.
    assert [name for name in PRELOADED if importlib.util.find_spec(name) is None] == []
