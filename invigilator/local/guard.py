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
from typing import IO, Self

import psutil

from invigilator.local.liveness import is_alive, wait_for_end
from invigilator.local.server import Server

ENGINE_TIMEOUT_S = 10.0


class Guard:
    """The parent's handle of the guard process. Leaving the `with` block ends whatever is still watched.

    Parameters:
        keep_open: file descriptors that the guard keeps open until it is done, such as a lock's.
    """

    def __init__(self, keep_open: Iterable[int] = ()) -> None:
        self._keep_open = tuple(keep_open)
        self._watched: dict[int, dict[str, int]] = {}
        self.process = self._launch()

    def watch_group(self, pid: int) -> None:
        """Watch a process that leads a group of its own: kill the whole group in the end."""
        self._watch({"pid": pid})

    def watch_engine(self, engine: Server) -> None:
        """Watch an engine: it gets its stop signal, and is killed when that does not help."""
        self._watch({"pid": engine.process.pid, "signal": int(engine.stop_signal)})

    def forget(self, pid: int) -> None:
        """Watch it no longer: it has ended, with everything that belonged to it."""
        self._watched.pop(pid, None)
        self._tell({"forget": pid})

    def renew(self) -> Self:
        """Start the guard process again after its end, and tell it everything anew."""
        launched = self._launch()  # first: if that fails, what is said meanwhile goes to the old one, in vain
        self._close()
        self.process = launched
        for message in self._watched.values():
            self._tell(message)
        return self

    def finish(self) -> None:
        """Wait for the guard process, which has ended. Until it is renewed, what it is told is only remembered."""
        self.process.wait()

    def _close(self) -> None:
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()

    def _launch(self) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(
            [sys.executable, "-P", "-m", __name__],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            pass_fds=self._keep_open,
            start_new_session=True,  # Ctrl-C in the terminal does not reach it
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )

    def _watch(self, message: dict[str, int]) -> None:
        self._watched[message["pid"]] = message
        self._tell(message)

    def _tell(self, message: dict[str, int]) -> None:
        assert self.process.stdin is not None
        # A guard that has died is noticed by whoever watches `process`.
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(json.dumps(message).encode() + b"\n")
            self.process.stdin.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()
        self.process.wait()


@dataclass(frozen=True, slots=True)
class _Watched:
    process: psutil.Process  # remembers when it started: a recycled pid is not mistaken for it
    stop_signal: int | None

    def end(self) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError, psutil.NoSuchProcess):
            if self.stop_signal is not None:
                _end_engine(self.process, self.stop_signal)
            elif self.process.is_running() or not psutil.pid_exists(self.process.pid):
                # Also when its leader has gone: while there is anybody in a group, nobody else gets its number.
                os.killpg(self.process.pid, signal.SIGKILL)


def main(orders: IO[bytes]) -> None:
    """Collect what to watch until the parent closes the pipe or dies; then end it, the newest first."""
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    for one in reversed(_collect(orders)):
        one.end()


def _collect(orders: IO[bytes]) -> list[_Watched]:
    watched: dict[int, _Watched] = {}
    for message in map(json.loads, orders):
        if "forget" in message:
            watched.pop(message["forget"], None)
            continue
        with contextlib.suppress(psutil.NoSuchProcess):
            watched[message["pid"]] = _Watched(psutil.Process(message["pid"]), message.get("signal"))
    return list(watched.values())


def _end_engine(process: psutil.Process, stop_signal: int) -> None:
    if not is_alive(process):
        return
    process.send_signal(stop_signal)
    if not wait_for_end(process, ENGINE_TIMEOUT_S):
        process.kill()


if __name__ == "__main__":
    main(sys.stdin.buffer)
