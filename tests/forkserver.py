"""Starts our programs without importing the libraries each time: one process imports them and forks.

A stack of four processes spends most of its CPU time on imports. A forked process is a process like any other: it
has a session, an environment, files and an exit status of its own, and signals reach only it. Only what it runs is
in memory already. `worker.app` and everything that reads the environment at import are imported by each process.
"""

import atexit
import gc
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
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
    "invigilator.local.up",
    "invigilator.web.server",
    "worker.celery.dispatcher",
    "worker.celery.pooling",
    "worker.celery.results",
    "worker.celery.strict_consumer",
    "worker.commands.consumer",
    "worker.commands.trust",
    "worker.effects.relay",
    "worker.effects.runner",
    "worker.feeds.brokers",
    "worker.feeds.cloudevents",
    "worker.feeds.fanout",
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
MESSAGE_BYTES = 2**16


@dataclass(frozen=True, slots=True)
class Program:
    """What a process shall run.

    Parameters:
        arguments: the name of a console script of this environment or of a module, and its arguments.
        environment: all of it.
        folder: the working directory.
        crash: what `Crash.arguments` makes, or nothing.
    """

    arguments: Sequence[str]
    environment: Mapping[str, str]
    folder: str
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
        self._socket, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", __name__],
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                stdin=theirs.fileno(),
                start_new_session=True,
            )

    def start(self, program: Program, output: int, errors: int) -> Forked:
        """Fork a process that leads a session of its own.

        Parameters:
            output, errors: descriptors that become its standard output and standard error.
        """
        return Forked(self, self.ask(output, errors, start=asdict(program)))

    def close(self) -> None:
        """End it, and wait. What it has started runs on."""
        self._socket.close()
        self._process.wait()

    def ask(self, *descriptors: int, **order: object) -> Any:
        """Give an order, and return its answer."""
        with self._lock:
            _send(self._socket, order, descriptors)
            return _receive(self._socket)[0]


@cache
def fork_server() -> ForkServer:
    """The one of this process."""
    server = ForkServer()
    atexit.register(server.close)
    return server


def run_to_end(
    arguments: Sequence[str], environment: Mapping[str, str], folder: Path, timeout_s: float
) -> "subprocess.CompletedProcess[str]":
    """Run a console script of this environment, as `subprocess.run` does.

    Raises:
        subprocess.TimeoutExpired: it has not come to its end. It is killed.
    """
    with tempfile.TemporaryFile("w+") as output:
        ran = run_into(output.fileno(), arguments, environment, folder, timeout_s)
        output.seek(0)
        return subprocess.CompletedProcess(arguments, ran.returncode, output.read(), ran.stderr)


def run_into(
    output: int, arguments: Sequence[str], environment: Mapping[str, str], folder: Path, timeout_s: float
) -> "subprocess.CompletedProcess[str]":
    """Run as `run_to_end` does, with this descriptor for its standard output."""
    with tempfile.TemporaryFile("w+") as errors:
        program = Program(arguments, environment, str(folder))
        process = fork_server().start(program, output, errors.fileno())
        try:
            status = process.wait(timeout_s)
        finally:
            process.send_signal(signal.SIGKILL)
        errors.seek(0)
        return subprocess.CompletedProcess(arguments, status, None, errors.read())


def _send(to: socket.socket, message: object, descriptors: Sequence[int] = ()) -> None:
    line = json.dumps(message).encode() + b"\n"
    sent = socket.send_fds(to, [line], descriptors)
    to.sendall(line[sent:])


def _receive(of: socket.socket) -> tuple[Any, Sequence[int]]:
    """A message and its descriptors; nothing at the end. Each message is answered before the next is sent."""
    line, descriptors, *_ = socket.recv_fds(of, MESSAGE_BYTES, 2)
    while line and not line.endswith(b"\n"):
        line += of.recv(MESSAGE_BYTES)
    return json.loads(line or "null"), descriptors


def main() -> None:
    """Serve until the end of standard input. Each forked process leaves the loop and runs its program."""
    for name in PRELOADED:
        import_module(name)
    assert "worker.app" not in sys.modules, "each process must import it with its own environment"
    scripts = {one.name: one for one in entry_points(group="console_scripts")}
    gc.freeze()
    client = socket.socket(fileno=0)
    while True:
        match _receive(client):
            case {"start": order}, descriptors:
                pid = os.fork()
                if pid == 0:
                    client.detach()  # the program's standard input takes its place
                    run(Program(**order), scripts, descriptors)
                for one in descriptors:
                    os.close(one)
                _send(client, pid)
            case {"poll": pid}, _:
                _send(client, _status(pid))
            case _:
                return


def _status(pid: int) -> int | None:
    ended, status = os.waitpid(pid, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if ended else None


def run(program: Program, scripts: Mapping[str, EntryPoint], descriptors: Sequence[int]) -> None:
    """Become the program. Ends this process.

    Parameters:
        scripts: the console scripts by their names.
        descriptors: become standard output and standard error.
    """
    os.setsid()
    # The tests may run under nohup, and what is ignored stays ignored.
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    os.chdir(program.folder)
    os.environ.clear()
    os.environ.update(program.environment)
    _redirect(descriptors)
    sys.argv = list(program.arguments)
    if program.crash:
        crash, marker = program.crash
        install(Crash.read(crash), Path(marker))
    name = program.arguments[0]
    if name in scripts:
        sys.exit(scripts[name].load()())
    runpy.run_module(name, run_name="__main__", alter_sys=True)
    sys.exit()


def _redirect(descriptors: Sequence[int]) -> None:
    for target, one in enumerate((os.open(os.devnull, os.O_RDONLY), *descriptors)):
        os.dup2(one, target)
        os.close(one)
    # Python's own streams remember what kind of file the server had.
    sys.stdin = open(0, closefd=False)  # noqa: SIM115 - these are open for the life of the process
    sys.stdout = open(1, "w", buffering=1, closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, closefd=False, errors="backslashreplace")  # noqa: SIM115


if __name__ == "__main__":
    main()
