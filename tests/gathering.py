"""Letting threads meet in one group of a `Coalescer`, without leaving that to chance."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from worker.effects.coalescer import Coalescer


class CountedCondition(threading.Condition):
    """Counts the threads that have begun to wait."""

    def __init__(self) -> None:
        super().__init__()
        self.waits = threading.Semaphore(0)

    def wait(self, timeout: float | None = None) -> bool:
        """They hold the lock, so whoever is counted is asleep before anybody can wake it."""
        self.waits.release()
        return super().wait(timeout)


@contextmanager
def gathering(grouped: Coalescer[Any, Any]) -> Iterator[Callable[[int], None]]:
    """Nobody is served in here until the function that this yields has seen so many ask: then all are, together.

    `grouped` must be new.
    """
    work, busy, go_on = grouped._work, threading.Event(), threading.Event()
    grouped._changed = changed = CountedCondition()

    def hold(_: Sequence[Any]) -> Sequence[None]:
        busy.set()
        go_on.wait()
        grouped._work = work
        return [None]

    def serve(number: int) -> None:
        for _ in range(number):
            changed.waits.acquire()
        go_on.set()

    grouped._work = hold
    holder = threading.Thread(target=grouped, args=(None,))
    holder.start()
    busy.wait()
    try:
        yield serve
    finally:
        go_on.set()
        holder.join()
