"""Runs the measured processes. Each leads a group, writes to a log, and ends even if the benchmark is killed."""

import json
import os
import select
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from invigilator.local.guard import Guard

ROOT = Path(__file__).parents[1]
LAST_LINES = 25
STOP_TIMEOUT_S = 15


class BenchmarkError(Exception):
    """A contestant could not be measured. The message says why."""


class Process:
    """A measured process. The constructor starts it.

    Parameters:
        name: the name under which its CPU is counted. Several processes may share a name.
        command: the program and its arguments.
        environment: the whole environment of the process.
        log: the file that receives its output.
        guard: ends the process if the benchmark is killed.
        talks: whether it speaks the drivers' protocol: JSON lines on standard input and output.
    """

    def __init__(
        self,
        name: str,
        command: str | Sequence[str],
        environment: Mapping[str, str],
        log: Path,
        guard: Guard,
        *,
        talks: bool = False,
    ) -> None:
        self.name = name
        self.log = log
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                shlex.split(command) if isinstance(command, str) else command,
                cwd=ROOT,
                env=dict(environment),
                stdin=subprocess.PIPE if talks else subprocess.DEVNULL,
                stdout=subprocess.PIPE if talks else output,
                stderr=output,
                start_new_session=True,
            )
        guard.watch_group(self._process.pid)
        self.pid = self._process.pid

    def check(self) -> None:
        """Make sure that the process runs.

        Raises:
            BenchmarkError: it has ended.
        """
        if self._process.poll() is not None:
            raise BenchmarkError(f"{self.name} ended, status {self._process.returncode}\n{self.last_lines()}")

    def last_lines(self) -> str:
        """Return the last lines of its log."""
        lines = self.log.read_text(errors="replace").splitlines()[-LAST_LINES:]
        return "\n".join([f"--- the last lines of {self.log}:", *lines])

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the whole group."""
        os.killpg(self.pid, number)

    def stop(self) -> None:
        """Ask the process to end, wait `STOP_TIMEOUT_S` seconds, then kill it."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        elif self._process.poll() is None:
            self._process.terminate()
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """Kill the whole group."""
        if self._process.poll() is None:
            self.signal(signal.SIGKILL)
        self._process.wait()

    def ask(self, request: Mapping[str, Any], timeout_s: float) -> dict[str, Any]:
        """Send a request to a driver and wait for its answer.

        Raises:
            BenchmarkError: the driver has ended, or does not answer within `timeout_s` seconds.
        """
        self.tell(request)
        return self.answer(timeout_s)

    def tell(self, request: Mapping[str, Any]) -> None:
        """Send a request to a driver.

        Raises:
            BenchmarkError: the driver has ended.
        """
        assert self._process.stdin is not None
        self.check()
        self._process.stdin.write(json.dumps(request).encode() + b"\n")
        self._process.stdin.flush()

    def answer(self, timeout_s: float) -> dict[str, Any]:
        """Wait for the next line of a driver, and return it.

        Raises:
            BenchmarkError: the driver has ended, or does not answer within `timeout_s` seconds.
        """
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], timeout_s)
        line = self._process.stdout.readline() if ready else b""
        if not line:
            why = "ended" if ready else f"has not answered for {timeout_s:g} s"
            raise BenchmarkError(f"{self.name} {why}\n{self.last_lines()}")
        answer: dict[str, Any] = json.loads(line)
        return answer


def wait_until(
    condition: Callable[[], bool],
    processes: Sequence[Process],
    what: str,
    patience_s: float,
    poll_s: float,
) -> None:
    """Wait until `condition()` is true.

    Raises:
        BenchmarkError: one of the processes has ended, or `patience_s` seconds have passed.
    """
    deadline = time.monotonic() + patience_s
    while not condition():
        for process in processes:
            process.check()
        if time.monotonic() > deadline:
            logs = "\n".join(process.last_lines() for process in processes)
            raise BenchmarkError(f"waited in vain for {what}\n{logs}")
        time.sleep(poll_s)


READY_TIMEOUT_S = 180


@contextmanager
def driver(
    name: str,
    command: Sequence[str],
    folder: Path,
    guard: Guard,
    environment: Mapping[str, str] | None = None,
) -> Iterator[tuple[Process, dict[str, Any]]]:
    """Start a driver. Yield it and its first line, which says that it is ready.

    Parameters:
        name: the name under which its CPU is counted.
        command: the program and its arguments.
        folder: receives its log.
        guard: ends it if the benchmark is killed.
        environment: added to the environment of `plain_environment`.
    """
    process = Process(
        name,
        command,
        plain_environment() | dict(environment or {}),
        folder / f"{name}.log",
        guard,
        talks=True,
    )
    try:
        yield process, process.answer(READY_TIMEOUT_S)
        process.stop()
    finally:
        process.kill()


def plain_environment() -> dict[str, str]:
    """Return our environment without Invigilator's settings, and with our programs first on the path."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    others = {name: value for name, value in os.environ.items() if not name.startswith("INVIGILATOR_")}
    return {**others, "PATH": path, "PYTHONUNBUFFERED": "1", "INVIGILATOR_ENV_FILE": ""}
