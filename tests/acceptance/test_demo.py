"""`invigilator demo` as a person runs it: stopped half-way, and then to the end though its parts are killed."""

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
ENGINES = ("postgres", "valkey-server")
FIGURES = "published 1935/1935, committed 1831/1831, effects 1004/1004"
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


def test_stopped_half_way_and_then_with_its_parts_killed_it_changes_nothing(data_dir: Path) -> None:
    # Given a demo at work, which is told to stop
    stopped = start(data_dir)
    log = data_dir / "demo.log"
    wait_for(log, "try done")
    stopped.send_signal(signal.SIGTERM)
    _, err = stopped.communicate(timeout=PATIENCE_S)
    # Then it says so, and nothing is left
    assert stopped.returncode == 1
    assert err.splitlines() == ["invigilator: stopped before the end of the session"]
    assert left_running(data_dir) == []
    # When another one works on what the first one left, and each of its processes is killed
    log.unlink()
    demo = start(data_dir, "--keep")
    wait_for(log, "try done")
    helpers = [one for one in psutil.Process(demo.pid).children() if one.name() not in ENGINES]
    for part in [part for helper in helpers for part in helper.children()]:
        part.kill()
    for name in read_procfile():
        wait_for(log, f"{name} ended by itself (killed by SIGKILL): it is started again")
    for helper in helpers:
        helper.kill()
    # Then they are started again, and everything comes out all the same
    shown = read_until(demo, "stays up until Ctrl-C")
    assert "Flower is at http://127.0.0.1:" in shown
    assert "the console is at http://127.0.0.1:" in shown
    assert FIGURES in shown
    assert RECONCILED in shown
    logged = log.read_text()
    for name in ("guard", "fork server"):
        assert f"{name} ended by itself (killed by SIGKILL): it is started again" in logged
    assert "example.org" not in logged  # nobody's address
    assert "Learner No." not in logged  # nobody's name
    # When one more is started while it stays up, then that one is refused
    _, err = start(data_dir).communicate(timeout=PATIENCE_S)
    assert len(err.splitlines()) == 1
    assert "already running" in err
    # And it ends when it is told to
    demo.send_signal(signal.SIGTERM)
    out, err = demo.communicate(timeout=PATIENCE_S)
    assert (demo.returncode, err) == (0, ""), out
    assert left_running(data_dir) == []
