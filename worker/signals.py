"""The signals that ask a process to stop."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def on_stop_signals(stop: Callable[[], None]) -> Iterator[None]:
    """Call `stop` for each stop signal that arrives during the block. Only the main thread may use this.

    `stop` runs inside a signal handler, so it must not take a lock. Setting a `threading.Event` takes one.
    """

    def handle(_number: int, _frame: FrameType | None) -> None:
        stop()

    # `nohup` ignores SIGHUP so that the process outlives its terminal. That choice is kept.
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
    """Block the stop signals in threads that are started in the block, so that the main thread receives them.

    The kernel gives a signal of the process to any thread that does not block it. If another thread receives it,
    a waiting main thread is not woken. This was seen in a process that had been stopped and was then continued.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
