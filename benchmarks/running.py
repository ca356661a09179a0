"""The processes that are measured: each in a group of its own, its output in a file, ended whatever happens."""

import json
import os
import select
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from invigilator.local.guard import Guard

ROOT = Path(__file__).parents[1]
LAST_LINES = 25
STOP_TIMEOUT_S = 15


class BenchmarkError(Exception):
    """A contestant could not be measured; the message says why."""


class Process:
    """A process, started by the constructor.

    Parameters:
        name: whose CPU it is: several processes may have the same one.
        log: its output.
        talks: whether it speaks the drivers' protocol, on its standard input and output.
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
        """Raise `BenchmarkError` when it has ended."""
        if self._process.poll() is not None:
            raise BenchmarkError(f"{self.name} ended, status {self._process.returncode}\n{self.last_lines()}")

    def last_lines(self) -> str:
        """The end of its output."""
        lines = self.log.read_text(errors="replace").splitlines()[-LAST_LINES:]
        return "\n".join([f"--- the last lines of {self.log}:", *lines])

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the whole group."""
        os.killpg(self.pid, number)

    def stop(self) -> None:
        """End it: politely, then not."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        elif self._process.poll() is None:
            self._process.terminate()
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """SIGKILL, the whole group."""
        if self._process.poll() is None:
            self.signal(signal.SIGKILL)
        self._process.wait()

    def ask(self, request: Mapping[str, Any], timeout_s: float) -> dict[str, Any]:
        """Send a driver a request and wait for its answer. Raises `BenchmarkError`."""
        self.tell(request)
        return self.answer(timeout_s)

    def tell(self, request: Mapping[str, Any]) -> None:
        """Send a driver a request. Raises `BenchmarkError`."""
        assert self._process.stdin is not None
        self.check()
        self._process.stdin.write(json.dumps(request).encode() + b"\n")
        self._process.stdin.flush()

    def answer(self, timeout_s: float) -> dict[str, Any]:
        """The driver's next line. Raises `BenchmarkError`."""
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], timeout_s)
        line = self._process.stdout.readline() if ready else b""
        if not line:
            why = "ended" if ready else f"has not answered for {timeout_s:g} s"
            raise BenchmarkError(f"{self.name} {why}\n{self.last_lines()}")
        answer: dict[str, Any] = json.loads(line)
        return answer


READY_TIMEOUT_S = 180


@contextmanager
def driver(
    name: str, command: Sequence[str], folder: Path, guard: Guard
) -> Iterator[tuple[Process, dict[str, Any]]]:
    """A driver that is ready, and what it said then."""
    process = Process(name, command, plain_environment(), folder / f"{name}.log", guard, talks=True)
    try:
        yield process, process.answer(READY_TIMEOUT_S)
        process.stop()
    finally:
        process.kill()


def plain_environment() -> dict[str, str]:
    """Ours, with our programs first."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    others = {name: value for name, value in os.environ.items() if not name.startswith("INVIGILATOR_")}
    return {**others, "PATH": path, "PYTHONUNBUFFERED": "1", "INVIGILATOR_ENV_FILE": ""}
