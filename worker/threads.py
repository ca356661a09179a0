"""Running the loops of a process in threads until a signal, or the failure of one of them, ends them all."""

import threading
from collections.abc import Callable, Mapping
from queue import SimpleQueue

from worker.signals import on_stop_signals, stop_signals_blocked

Loop = Callable[[threading.Event], None]
"""Runs until the event is set."""


def run_until_stopped(loops: Mapping[str, Loop]) -> None:
    """Run loops, each in a thread named as in the mapping, until SIGINT, SIGTERM or SIGHUP. For the main thread.

    Raises:
        Exception: what a loop raised; the others have been stopped.
    """
    ends: SimpleQueue[Exception | None] = SimpleQueue()  # unlike an Event, safe to use in a signal handler
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
