"""Coalesces calls that several threads make at the same time: one transaction serves all of them."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Generic, TypeVar

from sqlalchemy.exc import DBAPIError

from db.errors import Failure, classify
from worker.pacing import BURST, Pacer

Item = TypeVar("Item")
Result = TypeVar("Result")

GATHER_S = 0.05
"""The most seconds between two batches. Callers that arrive in between share the next one."""
CROWD = 8
"""So many waiting callers are served at once, without waiting for more. Half of the threads of a worker."""


def _nothing() -> None:
    """Stand in for a hook that nobody has set."""


class Coalescer(Generic[Item, Result]):
    """Coalesces concurrent calls.

    An idle caller runs immediately and alone; callers that arrive while work is running wait and are served as one
    batch. One of them, the leader, does the work in its own thread. Safe to share between threads.

    Two hooks let a test wait for a moment instead of sleeping. They do nothing unless they are set.

    Attributes:
        on_wait: called when a caller is about to wait. It runs under the lock, so the caller is asleep before
            anybody can wake it.
        on_lead: called by a leader before it collects its batch. While it runs, other callers can join the batch.

    Example:
        >>> def lengths(words: Sequence[str]) -> list[int]:
        ...     return [len(word) for word in words]
        >>> length = Coalescer(lengths, isolate=lambda error: True)
        >>> length("exam")
        4
    """

    def __init__(
        self,
        work: Callable[[Sequence[Item]], Sequence[Result]],
        isolate: Callable[[BaseException], bool],
        gather_s: float = GATHER_S,
        crowd: int = CROWD,
        burst: int = BURST,
    ) -> None:
        """Make a coalescer that is idle.

        Parameters:
            work: serves a batch, all or nothing, and returns one result for each item, in their order.
            isolate: whether a batch that failed with this error is tried again item by item, because one item may
                have caused it. Otherwise every caller of the batch gets the error.
            gather_s: the longest time in seconds that a batch waits for more callers (`worker.pacing`).
            crowd: number of waiting callers for whom a batch does not wait.
            burst: number of batches that do not wait, after a rest.
        """
        self.on_wait: Callable[[], None] = _nothing
        self.on_lead: Callable[[], None] = _nothing
        self._work = work
        self._isolate = isolate
        self._pacer = Pacer(gather_s, burst)
        self._crowd = crowd
        self._crowded = threading.Event()
        self._waiting: list[tuple[Item, Future[Result]]] = []
        self._busy = False
        self._changed = threading.Condition()

    def __call__(self, item: Item) -> Result:
        """Return the result for one item, which may be served in a batch with others.

        Raises:
            BaseException: what `work` raised.
        """
        future: Future[Result] = Future()
        with self._changed:
            self._waiting.append((item, future))
            if len(self._waiting) >= self._crowd:
                self._crowded.set()
            while self._busy and not future.done():
                self.on_wait()
                self._changed.wait()
            if future.done():
                return future.result()
            self._busy = True
        try:
            self.on_lead()
            self._serve(self._gather())
        finally:
            self._pacer.end()
            with self._changed:
                self._busy = False
                self._changed.notify_all()
        return future.result()

    def _gather(self) -> list[tuple[Item, Future[Result]]]:
        self._crowded.wait(self._pacer.pause_s())
        self._pacer.begin()
        with self._changed:
            self._crowded.clear()
            batch, self._waiting = self._waiting, []
        return batch

    def _serve(self, batch: Sequence[tuple[Item, Future[Result]]]) -> None:
        try:
            results = list(zip(batch, self._work([item for item, _ in batch]), strict=True))
        except BaseException as error:  # noqa: BLE001 - it is raised again in each thread
            if len(batch) > 1 and self._isolate(error):
                self._serve_isolated(batch)
            else:
                self._fail(batch, error)
        else:
            for (_, future), result in results:
                future.set_result(result)
            self._wake()

    def _serve_isolated(self, batch: Sequence[tuple[Item, Future[Result]]]) -> None:
        for number, one in enumerate(batch, 1):
            self._serve([one])
            error = one[1].exception()
            if error is not None and not self._isolate(error):
                return self._fail(batch[number:], error)
        return None

    def _fail(self, batch: Sequence[tuple[Item, Future[Result]]], error: BaseException) -> None:
        for _, future in batch:
            future.set_exception(error)
        self._wake()

    def _wake(self) -> None:
        # Each caller goes on as soon as it is served. A claim's lease already runs, so it must not wait for the
        # rest of its batch.
        with self._changed:
            self._changed.notify_all()


def one_is_to_blame(error: BaseException) -> bool:
    """Return whether a failed batch may succeed item by item. It cannot while the database is away."""
    return not isinstance(error, DBAPIError) or classify(error) is not Failure.UNAVAILABLE
