"""Lets threads meet in one batch of a `Coalescer`, without leaving that to chance."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from worker.effects.coalescer import Coalescer


def counted_waits(coalescer: Coalescer[Any, Any]) -> threading.Semaphore:
    """A semaphore that is released for each caller that begins to wait, from now on."""
    waits = threading.Semaphore(0)
    coalescer.on_wait = waits.release
    return waits


@contextmanager
def gathering(coalescer: Coalescer[Any, Any]) -> Iterator[Callable[[int], None]]:
    """Nobody is served in here until the function that this yields has seen so many ask: then all are, together."""
    waits, complete = counted_waits(coalescer), threading.Event()

    def hold() -> None:
        complete.wait()

    def serve(number: int) -> None:
        for _ in range(number - 1):  # all but the leader
            waits.acquire()
        complete.set()

    coalescer.on_lead = hold
    try:
        yield serve
    finally:
        complete.set()
