"""A small process that outlives a killed parent just long enough to end what the parent had started.

The parent holds one end of a pipe. However the parent ends, the kernel closes it, and the guard acts. That
works on every Unix, and needs no co-operation of those that are watched.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import IO

import psutil

from worker.embedded.processes import is_alive, wait_for_end
from worker.embedded.server import Server

ENGINE_TIMEOUT_S = 10.0


class Guard:
    """The parent's handle of the guard process. Leaving the `with` block ends whatever is still watched.

    Parameters:
        keep_open: file descriptors that the guard keeps open until it is done, such as a lock's.
    """

    def __init__(self, keep_open: Iterable[int] = ()) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", __name__],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            pass_fds=tuple(keep_open),
            start_new_session=True,  # Ctrl-C in the terminal does not reach it
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )

    def watch_group(self, pid: int) -> None:
        """Watch a process that leads a group of its own: kill the whole group in the end."""
        self._tell({"pid": pid})

    def watch_engine(self, engine: Server) -> None:
        """Watch an engine: it gets its stop signal, and is killed when that does not help."""
        self._tell({"pid": engine.process.pid, "signal": int(engine.stop_signal)})

    def _tell(self, message: dict[str, int]) -> None:
        assert self.process.stdin is not None
        # A guard that has died is noticed by whoever watches `process`.
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(json.dumps(message).encode() + b"\n")
            self.process.stdin.flush()

    def __enter__(self) -> "Guard":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.wait()


@dataclass(frozen=True, slots=True)
class _Watched:
    process: psutil.Process  # remembers when it started: a recycled pid is not mistaken for it
    stop_signal: int | None


def main(orders: IO[bytes]) -> None:
    """Collect what to watch until the parent closes the pipe or dies; then end it, the newest first."""
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    watched = list(_read(orders))
    for one in reversed(watched):
        if is_alive(one.process):
            _end(one)


def _read(orders: IO[bytes]) -> Iterable[_Watched]:
    for line in orders:
        message = json.loads(line)
        with contextlib.suppress(psutil.NoSuchProcess):
            yield _Watched(psutil.Process(message["pid"]), message.get("signal"))


def _end(one: _Watched) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError, psutil.NoSuchProcess):
        if one.stop_signal is None:
            os.killpg(one.process.pid, signal.SIGKILL)
        else:
            _end_engine(one.process, one.stop_signal)


def _end_engine(process: psutil.Process, stop_signal: int) -> None:
    process.send_signal(stop_signal)
    if not wait_for_end(process, ENGINE_TIMEOUT_S):
        process.kill()


if __name__ == "__main__":
    main(sys.stdin.buffer)
