"""A small process that ends the parent's processes after the parent was killed.

The parent holds one end of a pipe, and the kernel closes it however the parent ends. The guard then ends what it
watches. This works on every Unix and needs no co-operation of the watched processes.
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
    """The parent's handle of the guard process. Leaving the `with` block ends every process that is still watched.

    Parameters:
        keep_open: file descriptors that the guard inherits and keeps open until it is done. With the descriptor of
            a lock, the lock is held until the guard has cleaned up.
    """

    def __init__(self, keep_open: Iterable[int] = ()) -> None:
        self._keep_open = tuple(keep_open)
        self._watched: dict[int, dict[str, int]] = {}
        self.process = self._launch()

    def watch_group(self, pid: int) -> None:
        """Watch the leader of a process group. In the end the guard kills the whole group."""
        self._watch({"pid": pid})

    def watch_engine(self, engine: Server) -> None:
        """Watch an engine. In the end the guard sends its stop signal, and kills it if it does not end in time."""
        self._watch({"pid": engine.process.pid, "signal": int(engine.stop_signal)})

    def forget(self, pid: int) -> None:
        """Stop watching a process, because it has ended with its whole group."""
        self._watched.pop(pid, None)
        self._tell({"forget": pid})

    def renew(self) -> Self:
        """Start a new guard process after the old one has ended, and tell it what to watch.

        Raises:
            OSError: the process cannot be started. The handle stays as it was.
        """
        launched = self._launch()
        self._close()
        self.process = launched
        for message in self._watched.values():
            self._tell(message)
        return self

    def finish(self) -> None:
        """Collect the guard process, which has ended. New orders are remembered until `renew`."""
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
        # The pipe breaks when the guard has died. The supervisor of `process` notices that.
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
    process: psutil.Process  # also compares the start time, so a reused pid is not mistaken for this process
    stop_signal: int | None

    def end(self) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError, psutil.NoSuchProcess):
            if self.stop_signal is not None:
                _end_engine(self.process, self.stop_signal)
            elif self.process.is_running() or not psutil.pid_exists(self.process.pid):
                # The group is killed even when its leader has gone: a pid is not reused while a group has that id.
                os.killpg(self.process.pid, signal.SIGKILL)


def main(orders: IO[bytes]) -> None:
    """Collect orders until the parent closes the pipe or dies, then end the watched processes, newest first."""
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
