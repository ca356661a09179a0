"""Doing together what several threads ask for at the same time: one transaction for all of them."""

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Generic, TypeVar

from sqlalchemy.exc import DBAPIError

from db.errors import Failure, classify

Item = TypeVar("Item")
Result = TypeVar("Result")

GATHER_S = 0.05
"""What an effect waits for others before each of its transactions, at most, besides what is under way."""
CROWD = 8
"""So many do not wait for more: half of the threads of a worker."""


class Coalescer(Generic[Item, Result]):
    """Whoever asks while nobody is at work, and nobody was for a moment, does it at once, for itself alone; those
    who ask meanwhile are served together, by the first of them. Who comes alone waits for nobody; a crowd shares.

    Safe to share between threads.
    """

    def __init__(
        self,
        work: Callable[[Sequence[Item]], Sequence[Result]],
        isolate: Callable[[BaseException], bool],
        gather_s: float = GATHER_S,
        crowd: int = CROWD,
    ) -> None:
        """Parameters:
        work: does it for several items, all or nothing, and returns a result for each.
        isolate: whether the items should be done one at a time after an error, because one of them may be to
            blame; otherwise each of them has failed with it.
        gather_s: seconds from the beginning of one piece of work to that of the next, at least;
        crowd: unless so many wait for it.
        """
        self._work = work
        self._isolate = isolate
        self._gather_s = gather_s
        self._next_at = time.monotonic()
        self._crowd = crowd
        self._crowded = threading.Event()
        self._waiting: list[tuple[Item, Future[Result]]] = []
        self._busy = False
        self._changed = threading.Condition()

    def __call__(self, item: Item) -> Result:
        """Do it for one item, perhaps with others.

        Raises:
            BaseException: what `work` raised.
        """
        future: Future[Result] = Future()
        with self._changed:
            self._waiting.append((item, future))
            if len(self._waiting) >= self._crowd:
                self._crowded.set()
            while self._busy and not future.done():
                self._changed.wait()
            if future.done():
                return future.result()
            self._busy = True
        try:
            self._serve(self._gather())
        finally:
            with self._changed:
                self._busy = False
                self._changed.notify_all()
        return future.result()

    def _gather(self) -> list[tuple[Item, Future[Result]]]:
        self._crowded.wait(max(0.0, self._next_at - time.monotonic()))
        self._next_at = time.monotonic() + self._gather_s
        with self._changed:
            self._crowded.clear()
            group, self._waiting = self._waiting, []
        return group

    def _serve(self, group: Sequence[tuple[Item, Future[Result]]]) -> None:
        try:
            results = list(zip(group, self._work([item for item, _ in group]), strict=True))
        except BaseException as error:  # noqa: BLE001 - it is raised again in each thread
            if len(group) > 1 and self._isolate(error):
                self._serve_isolated(group)
            else:
                self._fail(group, error)
        else:
            for (_, future), result in results:
                future.set_result(result)
            self._wake()

    def _serve_isolated(self, group: Sequence[tuple[Item, Future[Result]]]) -> None:
        for number, one in enumerate(group, 1):
            self._serve([one])
            error = one[1].exception()
            if error is not None and not self._isolate(error):
                return self._fail(group[number:], error)
        return None

    def _fail(self, group: Sequence[tuple[Item, Future[Result]]], error: BaseException) -> None:
        for _, future in group:
            future.set_exception(error)
        self._wake()

    def _wake(self) -> None:
        # At once, and not when the whole group is served: what a thread has claimed has a lease that runs.
        with self._changed:
            self._changed.notify_all()


def one_is_to_blame(error: BaseException) -> bool:
    """Whether what failed for several effects may work for each of them alone, or for the others."""
    return not isinstance(error, DBAPIError) or classify(error) is not Failure.UNAVAILABLE
