"""The signals that ask a process to stop."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def on_stop_signals(stop: Callable[[], None]) -> Iterator[None]:
    """Call `stop` whenever one of them comes. For the main thread.

    `stop` runs inside a signal handler: it must not take a lock, and so not set a `threading.Event`.
    """

    def handle(_number: int, _frame: FrameType | None) -> None:
        stop()

    # `nohup` ignores the hang-up of the terminal on purpose.
    wanted = [
        number
        for number in STOP_SIGNALS
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN
    ]
    before = {number: signal.signal(number, handle) for number in wanted}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def stop_signals_blocked() -> Iterator[None]:
    """Threads that are started here leave these signals to the main thread.

    A signal to the process may go to any thread that does not block it, and one that another thread gets does not
    wake a main thread that waits. To a process that was stopped and has just been continued, that happens.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
