"""Starts our programs without importing the libraries each time: one process imports them and forks.

A stack of four processes spends most of its CPU time on imports. A forked process is a process like any other: it
has a session, an environment, files and an exit status of its own, and signals reach only it. Only what it runs is
in memory already. `worker.app` and everything that reads the environment at import are imported by each process.
"""

import gc
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from tests.chaos.points import Crash, install

ROOT = Path(__file__).parents[1]
PRELOADED = (
    "celery.app.amqp",
    "celery.app.control",
    "celery.app.events",
    "celery.app.log",
    "celery.apps.worker",
    "celery.bin.celery",
    "celery.concurrency.solo",
    "celery.concurrency.thread",
    "celery.fixups.django",
    "celery.worker.autoscale",
    "celery.worker.components",
    "celery.worker.consumer",
    "celery.worker.consumer.delayed_delivery",
    "celery.worker.strategy",
    "jinja2.ext",
    "kombu.pidbox",
    "kombu.transport.pyamqp",
    "kombu.transport.redis",
    "psycopg2.extras",
    "sqlalchemy.ext.compiler",
    "db.compatibility",
    "db.migrate",
    "invigilator.cli.main",
    "invigilator.cli.status",
    "invigilator.cli.system",
    "worker.celery.dispatcher",
    "worker.celery.pooling",
    "worker.celery.results",
    "worker.celery.strict_consumer",
    "worker.commands.consumer",
    "worker.commands.trust",
    "worker.effects.relay",
    "worker.effects.runner",
    "worker.feeds.brokers",
    "worker.feeds.numberer",
    "worker.feeds.publisher",
    "worker.health.judgement",
    "worker.heartbeat",
    "worker.pruning",
    "worker.subscriptions",
    "worker.threads",
    "worker.wiring",
)
POLL_S = 0.01


@dataclass(frozen=True, slots=True)
class Program:
    """What a process shall run.

    Parameters:
        arguments: the name of a console script of this environment, and its arguments.
        environment: all of it.
        folder: the working directory.
        log: takes what it prints.
        errors: takes what it prints on standard error, if not `log`.
        crash: what `Crash.arguments` makes, or nothing.
    """

    arguments: Sequence[str]
    environment: Mapping[str, str]
    folder: str
    log: str
    errors: str | None = None
    crash: Sequence[str] = ()


class Forked:
    """A process that was forked; the few methods of `subprocess.Popen` that the harness needs."""

    def __init__(self, server: "ForkServer", pid: int) -> None:
        self.pid = pid
        self._server = server
        self._lock = threading.Lock()
        self._status: int | None = None

    def poll(self) -> int | None:
        """The exit status, negative for a signal; None while it runs. Threads may ask at the same time."""
        with self._lock:
            if self._status is None:
                self._status = self._server.ask(poll=self.pid)
            return self._status

    def wait(self, timeout: float) -> int:
        """Wait for its end.

        Raises:
            subprocess.TimeoutExpired: it runs for longer than `timeout` seconds.
        """
        deadline = time.monotonic() + timeout
        while (status := self.poll()) is None:
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired(str(self.pid), timeout)
            time.sleep(POLL_S)
        return status

    def send_signal(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)


class ForkServer:
    """The process that imports and forks. It ends with the process that has started it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", __name__],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )

    def start(self, program: Program) -> Forked:
        """Fork a process that leads a session of its own."""
        return Forked(self, self.ask(start=asdict(program)))

    def ask(self, **order: object) -> Any:
        """Give an order, and return its answer."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with self._lock:
            self._process.stdin.write(json.dumps(order).encode() + b"\n")
            self._process.stdin.flush()
            return json.loads(self._process.stdout.readline())


@cache
def fork_server() -> ForkServer:
    """The one of this process."""
    return ForkServer()


def run_to_end(
    arguments: Sequence[str], environment: Mapping[str, str], folder: Path, timeout_s: float
) -> "subprocess.CompletedProcess[str]":
    """Run a console script of this environment, as `subprocess.run` does.

    Raises:
        subprocess.TimeoutExpired: it has not come to its end. It is killed.
    """
    with tempfile.TemporaryDirectory(prefix="invigilator-run-") as name:
        output, errors = Path(name, "output"), Path(name, "errors")
        program = Program(arguments, environment, str(folder), str(output), str(errors))
        process = fork_server().start(program)
        try:
            status = process.wait(timeout_s)
        finally:
            process.send_signal(signal.SIGKILL)
        return subprocess.CompletedProcess(arguments, status, output.read_text(), errors.read_text())


def main() -> None:
    """Serve until the end of standard input. Each forked process leaves the loop and runs its program."""
    for name in PRELOADED:
        import_module(name)
    assert "worker.app" not in sys.modules, "each process must import it with its own environment"
    scripts = {one.name: one for one in entry_points(group="console_scripts")}
    gc.freeze()
    for line in sys.stdin.buffer:
        match json.loads(line):
            case {"start": order}:
                pid = os.fork()
                if pid == 0:
                    program = Program(**order)
                    run(program, scripts[program.arguments[0]])
                answer: int | None = pid
            case {"poll": pid}:
                answer = _status(pid)
        sys.stdout.write(f"{json.dumps(answer)}\n")
        sys.stdout.flush()


def _status(pid: int) -> int | None:
    ended, status = os.waitpid(pid, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if ended else None


def run(program: Program, script: EntryPoint) -> None:
    """Become the program, which is `script`. Ends this process."""
    os.setsid()
    os.chdir(program.folder)
    os.environ.clear()
    os.environ.update(program.environment)
    _redirect(program.log, program.errors or program.log)
    sys.argv = list(program.arguments)
    if program.crash:
        crash, marker = program.crash
        install(Crash.read(crash), Path(marker))
    sys.exit(script.load()())


def _redirect(*logs: str) -> None:
    with suppress(OSError):
        sys.stdin.close()
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for target, log in enumerate(logs, 1):
        os.dup2(os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT), target)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115 - a descriptor, for the life of the process
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]


if __name__ == "__main__":
    main()
