"""Reads the Procfile and runs its processes: each leads a group, and its output is printed under its name."""

import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import IO, Protocol, TextIO

import psutil
from honcho.environ import parse_procfile
from honcho.printer import Message, Printer
from honcho.process import Popen

from invigilator.local.forkserver import ForkServer, Program
from invigilator.local.guard import Guard
from invigilator.local.liveness import is_alive
from worker.errors import ConfigurationError
from worker.textfiles import NotTextError, read_text

# In a checkout this is a link to the Procfile at the top. In a wheel it is a copy.
PROCFILE = Path(__file__).parents[1] / "Procfile"
OUR_NAME = "up"
GATE = "read -r _ || exit; exec </dev/null\n"
"""The beginning of each shell command. The shell waits for a line, and exits if its parent has gone instead.

The parent sends the line after the guard has learnt of the process, so that no process runs unwatched.
"""
FORKED = frozenset({"invigilator", "celery"})
"""The programs that the fork server runs. It has imported what they need."""
COLOURS = ("36", "33", "32", "35", "34", "31")


def read_procfile(file: Path = PROCFILE) -> dict[str, str]:
    """Return the commands of a Procfile by name.

    Raises:
        ConfigurationError: the file is missing, is not UTF-8, or names no process.
    """
    if not file.is_file():
        raise ConfigurationError(f"{file} is missing: reinstall Invigilator")
    try:
        commands = dict(parse_procfile(read_text(file)).processes)
    except NotTextError as error:
        raise ConfigurationError(f"{file}: {error}") from None
    if not commands:
        raise ConfigurationError(f"{file} names no process; a line is `name: command`")
    return commands


class Output:
    """Prints lines from many threads, each with the time and the name of its process."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._printer = Printer(stream or sys.stdout)
        self._lock = threading.Lock()
        self._colours: dict[str, str | None] = {OUR_NAME: None}

    def expect(self, names: Iterable[str]) -> None:
        """Choose colours and the column width for these process names."""
        self._colours |= {name: COLOURS[index % len(COLOURS)] for index, name in enumerate(names)}
        self._printer.width = max(map(len, self._colours))

    def write(self, line: str | bytes, name: str = OUR_NAME) -> None:
        # The system continues silently when its reader has gone (`up | head`).
        with self._lock, suppress(BrokenPipeError):
            now = datetime.now().astimezone()
            self._printer.write(Message("line", line, now, name, self._colours.get(name)))


class Process(Protocol):
    """A process that leads a group: a shell or a forked program."""

    pid: int

    def poll(self) -> int | None:
        """Return the exit status, negative for a signal, or None while it runs."""

    def wait(self) -> int:
        """Wait for its end, and return the exit status."""


Watch = Callable[[int], None]
"""Receives the pid of a process before its command begins."""
Launch = Callable[[str, Mapping[str, str], Path, Watch], tuple[Process, IO[bytes]]]
"""Starts a command with an environment in a folder. Returns the process, and what it prints."""


def launch_in_shell(
    command: str, environment: Mapping[str, str], folder: Path, watch: Watch
) -> tuple[Process, IO[bytes]]:
    """Start a command in a shell. See `Launch`."""
    # honcho's Popen runs a shell in a session of its own, with both outputs in one pipe.
    process = Popen(GATE + command, env=dict(environment), cwd=folder, stdin=subprocess.PIPE)
    watch(process.pid)
    with suppress(BrokenPipeError), process.stdin as gate:
        gate.write(b"\n")
    return process, process.stdout


def arguments_of(command: str) -> list[str] | None:
    """Return the words of a command that the fork server can run. None for one that needs a shell."""
    words = command.split()
    is_plain = all(shlex.quote(word) == word for word in words)
    return words if is_plain and not FORKED.isdisjoint(words[:1]) else None


def forking(forks: ForkServer) -> Launch:
    """Return what has a fork server start commands that `arguments_of` can read."""

    def launch(
        command: str, environment: Mapping[str, str], folder: Path, watch: Watch
    ) -> tuple[Process, IO[bytes]]:
        program = Program(arguments_of(command) or (), environment, str(folder))
        reading, writing = os.pipe()
        lines = os.fdopen(reading, "rb")
        try:
            return forks.start(program, writing, writing, watch), lines
        except OSError:
            lines.close()
            raise
        finally:
            os.close(writing)

    return launch


class Child:
    """A running process of the Procfile. The constructor starts it.

    Parameters:
        name: the process's name in the Procfile.
        command: its command line.
        environment: the whole environment of the process.
        folder: the working folder of the process.
        output: prints the lines of the process.
        guard: watches the process from before the command begins until its whole group has ended.
        launch: starts the command.

    Raises:
        OSError: the process cannot be started.
    """

    def __init__(
        self,
        name: str,
        command: str,
        environment: Mapping[str, str],
        folder: Path,
        output: Output,
        guard: Guard,
        launch: Launch = launch_in_shell,
    ) -> None:
        self.name = name
        self._guard = guard
        self.process, self._lines = launch(command, environment, folder, guard.watch_group)
        self._reader = threading.Thread(target=self._read, args=(output,), name=f"output-{name}", daemon=True)
        self._reader.start()

    def _read(self, output: Output) -> None:
        with self._lines as lines:
            for line in lines:
                output.write(line, self.name)

    def is_alive(self) -> bool:
        """Return whether the process or any other member of its group still runs."""
        return self.process.poll() is None or (self.signal(0) and any(map(is_alive, self._group())))

    def _group(self) -> Iterator[psutil.Process]:
        for process in psutil.process_iter():
            with suppress(ProcessLookupError):
                if os.getpgid(process.pid) == self.process.pid:
                    yield process

    def signal(self, number: int) -> bool:
        """Send a signal to the whole group. Return False when the group is empty."""
        try:
            os.killpg(self.process.pid, number)
        except (ProcessLookupError, PermissionError):
            return False  # macOS forbids signals to a group that has only zombies
        return True

    def finish(self) -> None:
        """Kill what is left of the group and print its last lines."""
        self.signal(signal.SIGKILL)
        self.process.wait()
        self._guard.forget(self.process.pid)
        self._reader.join(timeout=1)


def stop_children(children: Iterable[Child], grace_s: float, hurry: Callable[[], bool]) -> None:
    """End all children: send SIGTERM, wait at most `grace_s` seconds or until `hurry()`, then kill the rest."""
    children = list(children)
    deadline = time.monotonic() + grace_s
    for child in children:
        child.signal(signal.SIGTERM)
    while any(child.is_alive() for child in children) and time.monotonic() < deadline and not hurry():
        time.sleep(0.05)
    for child in children:
        child.finish()
