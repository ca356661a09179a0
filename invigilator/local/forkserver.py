"""A process that imports our modules once, and forks programs that need them.

Starting Python and importing takes seconds of CPU time, and most of the memory of a process. A forked program has
all that already, and shares it. It is a process like any other: it has a session, an environment, files and an exit
status of its own, and signals reach only it.

The server has no threads, no connections and no settings, so nothing of the kind is copied.
"""

import atexit
import errno
import gc
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from types import TracebackType
from typing import Any, NoReturn, Self

from setproctitle import setproctitle

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
    "invigilator.cli.main",
    "invigilator.cli.system",
    "invigilator.web.server",
    "worker.celery.dispatcher",
    "worker.celery.pooling",
    "worker.celery.results",
    "worker.celery.strict_consumer",
    "worker.commands.consumer",
    "worker.commands.trust",
    "worker.effects.relay",
    "worker.effects.runner",
    "worker.effects_wiring",
    "worker.feeds.brokers",
    "worker.feeds.cloudevents",
    "worker.feeds.fanout",
    "worker.feeds.numberer",
    "worker.feeds.publisher",
    "worker.heartbeat",
    "worker.pruning",
    "worker.subscriptions",
    "worker.threads",
    "worker.wiring",
)
"""What the processes of the Procfile import, but for `LATE`."""
LATE = "worker.app"
"""The module that each program imports itself, because it looks at its command line."""
UNKNOWN_STATUS = 255
"""The exit status of a program whose server was killed before it."""
PATIENCE_S = 300.0
POLL_S = 0.01
MESSAGE_BYTES = 2**16


@dataclass(frozen=True, slots=True)
class Program:
    """What a process shall run.

    Parameters:
        arguments: the name of a console script of this environment, and its arguments.
        environment: all of it.
        folder: the working folder.
    """

    arguments: Sequence[str]
    environment: Mapping[str, str]
    folder: str


class Forked:
    """A forked process, with the methods of `subprocess.Popen` that its users need."""

    def __init__(self, server: "ForkServer", pid: int, life: socket.socket) -> None:
        self.pid = pid
        self._server = server
        self._parent = server.process
        self._life = life
        self._lock = threading.Lock()
        self._status: int | None = None

    def poll(self) -> int | None:
        """Return the exit status, negative for a signal, or None while it runs. Several threads may ask."""
        with self._lock:
            if self._status is None and self._has_closed():
                self._status = self._server.status(self.pid, self._parent)
                if self._status is not None:
                    self._life.close()
            return self._status

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end, and return the exit status.

        Raises:
            subprocess.TimeoutExpired: it runs for longer than `timeout` seconds.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while (status := self.poll()) is None:
            if deadline is not None and time.monotonic() > deadline:
                raise subprocess.TimeoutExpired(str(self.pid), timeout or 0)
            time.sleep(POLL_S)
        return status

    def send_signal(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def _has_closed(self) -> bool:
        # The kernel closes the other end of the socket, so the server need not be asked again and again.
        try:
            return self._life.recv(1, socket.MSG_DONTWAIT) == b""
        except BlockingIOError:
            return False
        except ConnectionResetError:  # it has ended before it had read its start signal
            return True


class ForkServer:
    """The handle of the server process, which ends with the process that has started it.

    Leaving the `with` block ends the server. What it has started runs on.

        with ForkServer() as forks:
            program = Program(["invigilator", "--version"], os.environ, "/")
            forks.start(program, sys.stdout.fileno(), sys.stderr.fileno()).wait()

    Parameters:
        module: runs as the server; it calls `serve`.
        patience_s: seconds after which a server that does not answer is killed. A new one imports first.
    """

    def __init__(self, module: str = __name__, patience_s: float = PATIENCE_S) -> None:
        self._module = module
        self._patience_s = patience_s
        self._lock = threading.Lock()
        self._socket, self.process = self._launch()

    def start(
        self, program: Program, output: int, errors: int, watch: Callable[[int], None] = lambda _pid: None
    ) -> Forked:
        """Fork a process that leads a session of its own.

        Parameters:
            output, errors: descriptors that become its standard output and standard error.
            watch: receives its pid before the program begins. If this process is killed meanwhile, the program
                does not begin.

        Raises:
            OSError: the server has ended, or does not answer.
        """
        with ExitStack() as unless_started:
            ours, theirs = map(unless_started.enter_context, socket.socketpair())
            pid = self._ask(output, errors, theirs.fileno(), start=asdict(program))
            watch(pid)
            with suppress(BrokenPipeError):
                ours.send(b"\n")
            theirs.close()
            unless_started.pop_all()
        return Forked(self, pid, ours)

    def status(self, pid: int, parent: "subprocess.Popen[bytes]") -> int | None:
        """Return the exit status of what the server process `parent` has forked, or None while it runs."""
        if parent is not self.process:
            return UNKNOWN_STATUS
        try:
            status: int | None = self._ask(poll=pid)
        except OSError:
            return UNKNOWN_STATUS
        return status

    def renew(self) -> Self:
        """Start a new server process after the old one has ended.

        Raises:
            OSError: the process cannot be started. The handle stays as it was.
        """
        launched = self._launch()
        self._socket.close()
        self._socket, self.process = launched
        return self

    def finish(self) -> None:
        """Collect the server process, which has ended."""
        self.process.wait()

    def close(self) -> None:
        """End the server process, and wait for its end."""
        self._socket.close()
        self.process.kill()  # it may stand still
        self.process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _launch(self) -> tuple[socket.socket, "subprocess.Popen[bytes]"]:
        ours, theirs = socket.socketpair()
        with theirs:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", self._module],
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
                stdin=theirs.fileno(),
                start_new_session=True,  # Ctrl-C in the terminal does not reach it
            )
        ours.settimeout(self._patience_s)
        return ours, process

    def _ask(self, *descriptors: int, **order: object) -> Any:
        try:
            with self._lock:
                _send(self._socket, order, descriptors)
                answer, _ = _receive(self._socket)
        except TimeoutError:
            self.process.kill()  # its answer may come later, and would be taken for that of another order
            raise TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT)) from None
        if answer is None:
            raise ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET))
        return answer["is"]


def _send(to: socket.socket, message: object, descriptors: Sequence[int] = ()) -> None:
    line = json.dumps(message).encode() + b"\n"
    sent = socket.send_fds(to, [line], descriptors)
    to.sendall(line[sent:])


def _receive(of: socket.socket) -> tuple[Any, Sequence[int]]:
    """Return a message and its descriptors. At the end the message is None."""
    line, descriptors, *_ = socket.recv_fds(of, MESSAGE_BYTES, 3)
    while line and not line.endswith(b"\n"):
        line += of.recv(MESSAGE_BYTES)
    return json.loads(line or "null"), descriptors


def serve(modules: Iterable[str], become: Callable[[Mapping[str, Any]], NoReturn]) -> None:
    """Import modules, and serve until the end of standard input, which is the client's socket.

    Parameters:
        modules: their names. What is not installed is left out.
        become: runs what a `Program` says, as a mapping of its fields, and ends the process.
    """
    end = _End()
    for name in modules:
        with suppress(ModuleNotFoundError):
            import_module(name)
    assert LATE not in sys.modules
    gc.freeze()  # the garbage collector would write to the pages that all share
    client = socket.socket(fileno=0)
    while True:
        match _receive(client):
            case {"start": order}, descriptors:
                pid = _fork(client, descriptors)
                if pid == 0:
                    end.of(become, order)
                _send(client, {"is": pid})
            case {"poll": pid}, _:
                _send(client, {"is": _status(pid)})
            case _:
                return


class _End:
    """How a forked program ends: as any other, but Python does not take it to pieces.

    That would write to nearly every page that all programs share, and so copy it: most of what a short program
    costs. Create it before the modules are imported. What is registered first with `atexit` is called last. What is
    in a file that nobody has closed is lost.
    """

    def __init__(self) -> None:
        self._status: int | None = None
        atexit.register(self._at_once)

    def of(self, become: Callable[[Mapping[str, Any]], NoReturn], order: Mapping[str, Any]) -> NoReturn:
        """Run a program. One that ends with an error or with a text is left to Python, which prints it."""
        try:
            become(order)
        except SystemExit as ended:
            if ended.code is None or isinstance(ended.code, int):
                self._status = ended.code or 0
            raise

    def _at_once(self) -> None:
        if self._status is not None:
            logging.shutdown()
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(self._status)


def _fork(client: socket.socket, descriptors: Sequence[int]) -> int:
    """Fork. Return the pid when the child leads its session, and 0 in the child when it may begin."""
    *outputs, life = descriptors
    ready, leads = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.setsid()
        os.close(leads)
        os.close(ready)
        client.detach()  # the program's standard input takes its place
        _redirect(outputs)
        if not os.read(life, 1):
            os._exit(1)  # whoever wanted this program was killed
        return 0
    os.close(leads)
    os.read(ready, 1)
    for one in (ready, *descriptors):
        os.close(one)
    return pid


def _redirect(outputs: Sequence[int]) -> None:
    for target, one in enumerate((os.open(os.devnull, os.O_RDONLY), *outputs)):
        os.dup2(one, target)
        os.close(one)
    # Python's own streams remember what kind of file the server had.
    sys.stdin = open(0, closefd=False)  # noqa: SIM115 - these are open for the life of the process
    sys.stdout = open(1, "w", buffering=1, closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, closefd=False, errors="backslashreplace")  # noqa: SIM115


def _status(pid: int) -> int | None:
    ended, status = os.waitpid(pid, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if ended else None


def scripts() -> Mapping[str, EntryPoint]:
    """Return the console scripts of this environment by name."""
    return {one.name: one for one in entry_points(group="console_scripts")}


def prepare(program: Program) -> None:
    """Give this forked process what a program finds that a shell has started."""
    # This comes first, because it looks for the environment that the process began with.
    setproctitle(" ".join(program.arguments))
    # What is ignored stays ignored, and the server may run under nohup.
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    os.chdir(program.folder)
    os.environ.clear()
    os.environ.update(program.environment)
    sys.argv = list(program.arguments)


def main() -> None:
    """Serve the programs of the Procfile."""
    known = scripts()

    def become(order: Mapping[str, Any]) -> NoReturn:
        program = Program(**order)
        prepare(program)
        sys.path[:] = program.environment["PYTHONPATH"].split(os.pathsep)
        sys.exit(known[program.arguments[0]].load()())

    serve(PRELOADED, become)


if __name__ == "__main__":
    main()
