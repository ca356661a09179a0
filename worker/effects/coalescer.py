"""Coalesces calls that several threads make at the same time: one transaction serves all of them."""

import threading
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar, cast

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
        on_wait: called when a caller is about to wait. It runs under the lock, so nobody can serve the caller
            before this has returned.
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
        self._waiting: list[_Call[Item, Result]] = []
        self._busy = False
        self._lock = threading.Lock()

    def __call__(self, item: Item) -> Result:
        """Return the result for one item, which may be served in a batch with others.

        Raises:
            BaseException: what `work` raised.
        """
        call: _Call[Item, Result] = _Call(item)
        with self._lock:
            self._waiting.append(call)
            if len(self._waiting) >= self._crowd:
                self._crowded.set()
            leads, self._busy = not self._busy, True
            if not leads:
                self.on_wait()
        if not leads:
            call.turn.acquire()
        if not call.is_done:
            self._lead(call)
        return call.returned()

    def _lead(self, call: "_Call[Item, Result]") -> None:
        try:
            self.on_lead()
            self._serve(self._gather())
        finally:
            self._pacer.end()
            with self._lock:
                # An error may have kept it from gathering. Its thread does not lead again.
                if call in self._waiting:
                    self._waiting.remove(call)
                self._busy = bool(self._waiting)
                if self._busy:
                    self._waiting[0].turn.release()

    def _gather(self) -> Sequence["_Call[Item, Result]"]:
        pause_s = self._pacer.pause_s()
        if pause_s > 0:
            self._crowded.wait(pause_s)
        self._pacer.begin()
        with self._lock:
            self._crowded.clear()
            batch, self._waiting = self._waiting, []
        return batch

    def _serve(self, batch: Sequence["_Call[Item, Result]"]) -> None:
        try:
            self._serve_together(batch)
        except BaseException as error:  # noqa: BLE001 - it is raised again in each thread
            if len(batch) > 1 and self._isolate(error):
                self._serve_isolated(batch)
            else:
                self._fail(batch, error)

    def _serve_isolated(self, batch: Sequence["_Call[Item, Result]"]) -> None:
        for number, call in enumerate(batch, 1):
            try:
                self._serve_together([call])
            except BaseException as error:  # noqa: BLE001 - as above
                if not self._isolate(error):
                    return self._fail(batch[number - 1 :], error)
                self._fail([call], error)
        return None

    def _serve_together(self, batch: Sequence["_Call[Item, Result]"]) -> None:
        # Each caller goes on as soon as it is served. A claim's lease already runs, so it must not wait for the
        # rest of its batch.
        for call, result in list(zip(batch, self._work([call.item for call in batch]), strict=True)):
            call.end(result, None)

    def _fail(self, batch: Sequence["_Call[Item, Result]"], error: BaseException) -> None:
        for call in batch:
            call.end(None, error)


class _Call(Generic[Item, Result]):
    """A call that waits for its turn: until it is served, or until its thread is to serve the next batch.

    Each call has a lock of its own to wait for. A condition that all share would wake everybody, and most of them
    only to wait again; that took a twentieth of a worker's CPU. A `Future` has another lock and a condition.
    """

    __slots__ = ("_error", "_result", "is_done", "item", "turn")

    def __init__(self, item: Item) -> None:
        self.item = item
        self.is_done = False
        self.turn = threading.Lock()
        self.turn.acquire()
        self._result: Result | None = None
        self._error: BaseException | None = None

    def end(self, result: Result | None, error: BaseException | None) -> None:
        """Let the caller go on, with a result or an error."""
        self._result, self._error, self.is_done = result, error, True
        self.turn.release()

    def returned(self) -> Result:
        """Return the result, or raise the error. To be called once."""
        error, self._error = self._error, None
        if error is None:
            return cast("Result", self._result)
        try:
            raise error
        finally:
            del error  # its traceback leads here, and so would never be given back


def one_is_to_blame(error: BaseException) -> bool:
    """Return whether a failed batch may succeed item by item. It cannot while the database is away."""
    return not isinstance(error, DBAPIError) or classify(error) is not Failure.UNAVAILABLE
