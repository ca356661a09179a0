"""Runs the loops of a process in threads until a signal, or the end of one of them, stops them all."""

import threading
from collections.abc import Callable, Mapping
from queue import SimpleQueue

from worker.signals import on_stop_signals, stop_signals_blocked

Loop = Callable[[threading.Event], None]
"""A function that runs until the event is set."""


def run_until_stopped(loops: Mapping[str, Loop]) -> None:
    """Run each loop in a thread of its own until SIGINT, SIGTERM or SIGHUP. Only the main thread may call this.

    When one loop ends or raises, all others are stopped, too.

    Parameters:
        loops: thread name → loop.

    Raises:
        Exception: the first error that a loop raised. All loops have ended by then.
    """
    ends: SimpleQueue[Exception | None] = SimpleQueue()  # safe to use in a signal handler, unlike an Event
    stopping = threading.Event()
    threads = [
        threading.Thread(target=_run, args=(loop, stopping, ends), name=name) for name, loop in loops.items()
    ]
    with on_stop_signals(lambda: ends.put(None)):
        with stop_signals_blocked():
            for thread in threads:
                thread.start()
        first = ends.get()
        stopping.set()
        for thread in threads:
            thread.join()
    if first is not None:
        raise first


def _run(loop: Loop, stopping: threading.Event, ends: "SimpleQueue[Exception | None]") -> None:
    try:
        loop(stopping)
    except Exception as error:  # noqa: BLE001 - raised again in the main thread
        ends.put(error)
    else:
        ends.put(None)
