"""Connects to hosts by a moment: looks names up, and tries one address after the other."""

import socket
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import TypeVar

from worker.addresses import host_of, literal

CONNECT_S = 3.0
"""The most seconds for a connection to one address, while there is another one to try."""

LookUp = Callable[[str, int, float], Sequence[str]]
Choose = Callable[[Sequence[str]], Sequence[str]]
Connected = TypeVar("Connected")


class LookUps:
    """Looks names up, each once at a time, in a thread of its own. Many threads may use it at the same time.

    The system's look-up cannot be interrupted, and a name server that hangs keeps it. So every call that needs an
    answer waits for the same look-up, and no longer than it likes. The thread is a daemon, so it keeps no process.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pending: dict[tuple[str, int], Future[Sequence[str]]] = {}

    def __call__(self, host: str, port: int, ends_at: float) -> Sequence[str]:
        """Return the addresses of a host, in the system's order of preference.

        Parameters:
            host: a name in ASCII.
            port: that somebody wants to connect to.
            ends_at: the end of the wait, as `time.monotonic()` tells it.

        Raises:
            TimeoutError: there is no answer yet.
            OSError: the name is not known, or the system gives no thread.
        """
        name = (host, port)
        with self._lock:
            pending = self._pending.get(name)
            if pending is None:
                pending = Future()
                asking = threading.Thread(target=self._ask, args=(name, pending), name="look-up", daemon=True)
                try:
                    asking.start()
                except RuntimeError as error:
                    raise OSError("there is no thread left for a look-up") from error
                self._pending[name] = pending
        return pending.result(left_s(ends_at))

    def _ask(self, name: tuple[str, int], pending: Future[Sequence[str]]) -> None:
        host, port = name
        try:
            # As bytes: the text would go through a codec that raises UnicodeError for a label that is too long.
            found = socket.getaddrinfo(host.encode("ascii"), port, type=socket.SOCK_STREAM)
        except Exception as error:  # noqa: BLE001 - it is raised again in each thread that waits
            self._forget(name)
            pending.set_exception(error)
        else:
            self._forget(name)
            pending.set_result(list(dict.fromkeys(host_of(address) for *_, address in found)))

    def _forget(self, name: tuple[str, int]) -> None:
        with self._lock:
            del self._pending[name]


look_up = LookUps()


def left_s(ends_at: float) -> float:
    """Return the seconds until a moment of `time.monotonic()`, more than 0.

    Raises:
        TimeoutError: it has passed.
    """
    seconds = ends_at - time.monotonic()
    if seconds <= 0:
        raise TimeoutError
    return seconds


def dial(
    host: str,
    port: int,
    ends_at: float,
    connect: Callable[[str, float], Connected],
    *,
    choose: Choose = list,
    look_up: LookUp = look_up,
) -> Connected:
    """Connect to the first address of a host that answers.

    Each address gets an equal share of the time that is left, and at most `CONNECT_S` seconds if it is not the
    last, so that a dead one leaves time for the others.

    Parameters:
        host: a name in ASCII, or an address.
        port: to connect to.
        ends_at: the end of everything, as `time.monotonic()` tells it.
        connect: connects to an address, in that many seconds at most.
        choose: leaves out addresses.
        look_up: finds the addresses of a name.

    Raises:
        TimeoutError: the time was over before the last address could be tried.
        Exception: what `look_up` and `choose` raise, and what `connect` raises of the last address.
    """
    written = literal(host)
    *others, last = choose(look_up(host, port, ends_at) if written is None else [str(written)])
    for tried, address in enumerate(others):
        try:
            return connect(address, min(CONNECT_S, left_s(ends_at) / (len(others) - tried + 1)))
        except Exception:  # noqa: BLE001, S112 - the next one may answer
            continue
    return connect(last, left_s(ends_at))
