"""`invigilator demo` as a person runs it: to the end, twice, with nothing left running; and stopped half-way."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from invigilator.local.procfile import read_procfile

INVIGILATOR = Path(sys.executable).with_name("invigilator")
RECONCILED = "reconciliation: 240 learners, 960 credit requirements compared: 0 differences"
PATIENCE_S = 300  # before the test gives up; a run takes about a minute


@pytest.fixture
def data_dir(tmp_path: Path, postgres_url: str) -> Iterator[Path]:
    """`postgres_url` is asked for because it skips the test where engines cannot run."""
    yield tmp_path / "data"
    for leftover in left_running(tmp_path / "data"):
        leftover.kill()


def start(data_dir: Path, *arguments: str) -> "subprocess.Popen[str]":
    variables = {name: value for name, value in os.environ.items() if not name.startswith("INVIGILATOR_")}
    return subprocess.Popen(
        [INVIGILATOR, "demo", *arguments],
        env={**variables, "INVIGILATOR_DATA_DIR": str(data_dir), "PYTHONUNBUFFERED": "1"},
        cwd=data_dir.parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def left_running(data_dir: Path) -> list[psutil.Process]:
    """Every process that works on the data folder: named on its command line, in its settings, or locked."""
    return [process for process in psutil.process_iter() if _is_of(process, str(data_dir))]


def _is_of(process: psutil.Process, data_dir: str) -> bool:
    try:
        words = [*process.cmdline(), process.environ().get("INVIGILATOR_DATA_DIR", "")]
        return any(data_dir in word for word in words)
    except psutil.Error:
        return False


def read_until(process: "subprocess.Popen[str]", words: str) -> str:
    """What the process prints, up to the line with these words, or to its end."""
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if words in line:
            break
    return "".join(lines)


def wait_for(log: Path, words: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not (log.exists() and words in log.read_text()):
        assert time.monotonic() < deadline, f"{words} never came"
        time.sleep(0.1)


def test_runs_to_the_end_without_a_difference_and_again_on_the_same_data(data_dir: Path) -> None:
    # Given a demo that has run to its end
    first = start(data_dir)
    out, err = first.communicate(timeout=PATIENCE_S)
    assert (first.returncode, err) == (0, ""), out
    assert "Flower is at http://127.0.0.1:" in out
    assert "published 1935/1935, committed 1831/1831, effects 1004/1004" in out
    assert RECONCILED in out
    assert left_running(data_dir) == []
    log = (data_dir / "demo.log").read_text()
    assert "succeeded in" in log
    assert "example.org" not in log  # nobody's address
    assert "Learner No." not in log  # nobody's name
    # When there is another one on what the first one left
    second = start(data_dir, "--keep")
    shown = read_until(second, "stays up until Ctrl-C")
    assert RECONCILED in shown
    assert left_running(data_dir)
    # Then it ends when it is told to
    second.send_signal(signal.SIGTERM)
    out, err = second.communicate(timeout=PATIENCE_S)
    assert (second.returncode, err) == (0, ""), out
    assert left_running(data_dir) == []


def test_a_part_that_is_killed_half_way_changes_nothing(data_dir: Path) -> None:
    # Given a demo at work
    demo = start(data_dir)
    log = data_dir / "demo.log"
    wait_for(log, "succeeded in")
    # When each of its processes is killed
    for part in psutil.Process(demo.pid).children():
        if part.name() not in ("postgres", "valkey-server"):
            part.kill()
    out, err = demo.communicate(timeout=PATIENCE_S)
    # Then they were started again, and everything has come out all the same
    assert (demo.returncode, err) == (0, ""), out
    assert RECONCILED in out
    for name in (*read_procfile(), "guard"):
        assert f"{name} ended by itself (killed by SIGKILL): it is started again" in log.read_text()
    assert left_running(data_dir) == []


def test_sigterm_half_way_stops_everything(data_dir: Path) -> None:
    # Given a demo at work, and another one that is refused
    first = start(data_dir)
    wait_for(data_dir / "demo.log", "succeeded in")
    second = start(data_dir)
    _, err = second.communicate(timeout=PATIENCE_S)
    assert second.returncode == 1
    assert len(err.splitlines()) == 1
    assert "already running" in err
    # When the first one is told to stop
    first.send_signal(signal.SIGTERM)
    _, err = first.communicate(timeout=PATIENCE_S)
    # Then it says so, and nothing is left
    assert first.returncode == 1
    assert err.splitlines() == ["invigilator: stopped before the end of the session"]
    assert left_running(data_dir) == []
