"""The command line in a process of its own: its streams, and what it loads."""

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from invigilator.cli import main as module

ENVIRONMENT = {"PYTHONPATH": str(Path(module.__file__).parents[2])}
COMMAND = [sys.executable, "-c", "from invigilator.cli.main import main; main()"]
HEAVY = ("sqlalchemy", "pydantic", "celery", "kombu", "redis", "flower", "httpx", "rich")
CASE = {"from_status": "created", "taking_as_proctored": True, "is_sample_attempt": False}


def test_a_line_is_answered_before_the_next_is_asked() -> None:
    with subprocess.Popen(
        [*COMMAND, "decide"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for to_status in ("started", "submitted"):
            process.stdin.write(json.dumps({**CASE, "to_status": to_status}) + "\n")
            process.stdin.flush()
            assert json.loads(process.stdout.readline())["status"] == to_status
        process.stdin.close()
        assert process.wait() == 0


def test_a_reader_that_goes_away_is_no_drama(tmp_path: Path) -> None:
    line = b'{"from_status": "created", "to_status": "started"}\n'
    questions = tmp_path / "questions"
    questions.write_bytes(line * 10_000)
    with questions.open("rb") as stdin:
        process = subprocess.Popen(
            [*COMMAND, "decide"], stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
    with process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 0


@pytest.mark.parametrize(
    ("arguments", "status", "told"),
    [(("--help",), 0, ""), (("--version",), 0, ""), (("effects", "list"), 1, "no database configured")],
)
def test_a_reader_that_has_gone_before_is_no_drama(
    tmp_path: Path, arguments: tuple[str, ...], status: int, told: str
) -> None:
    with closed_pipe() as standard_output:
        ran = ended(tmp_path, *arguments, stdout=standard_output, stderr=subprocess.PIPE)
    assert ran.returncode == status
    assert told in ran.stderr.decode()
    assert len(ran.stderr.splitlines()) == bool(told)


def test_errors_that_nobody_reads_change_no_status(tmp_path: Path) -> None:
    with closed_pipe() as standard_error:
        ran = ended(tmp_path, "frobnicate", stdout=subprocess.PIPE, stderr=standard_error)
    assert (ran.returncode, ran.stdout) == (2, b"")


def test_what_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    with Path("/dev/full").open("wb") as full:
        ran = ended(tmp_path, "--version", stdout=full, stderr=subprocess.PIPE)
    assert ran.returncode == 1
    assert ran.stderr == b"invigilator: No space left on device: check the system\n"


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_streams_may_be_closed(tmp_path: Path, closed: str) -> None:
    command = f"{shlex.join([*COMMAND, '--version'])} {closed}"
    ran = subprocess.run(
        ["/bin/sh", "-c", command], capture_output=True, check=False, env=ENVIRONMENT, cwd=tmp_path
    )
    assert (ran.returncode, ran.stderr) == (0, b"")


@contextmanager
def closed_pipe() -> Iterator[int]:
    """Yield the write end of a pipe that has no reader."""
    reading_end, writing_end = os.pipe()
    os.close(reading_end)
    try:
        yield writing_end
    finally:
        os.close(writing_end)


def ended(folder: Path, *arguments: str, **streams: Any) -> "subprocess.CompletedProcess[bytes]":
    """Run a command in a process of its own, without any configuration."""
    command = [*COMMAND, *arguments]
    return subprocess.run(command, **streams, env=ENVIRONMENT, cwd=folder, check=False, text=False)


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        pytest.param("invigilator.cli.main", HEAVY, id="help and decide"),
        pytest.param("worker.processes", ("httpx", "jinja2", "sqlalchemy.orm"), id="consume and relay"),
        pytest.param("worker.effects_wiring", ("sqlalchemy.orm",), id="workers"),
    ],
)
def test_nothing_heavy_is_loaded_that_is_not_used(module: str, heavy: tuple[str, ...]) -> None:
    script = f"import sys, {module}\nprint([name for name in {heavy} if name in sys.modules])\n"
    ran = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, env=ENVIRONMENT
    )
    assert ran.stdout == "[]\n"
