"""Runs work that may hang in a thread of its own, so that a caller that waits for it gives up in time.

A time-out of a socket bounds one step only. It does not bound looking up a name, trying several addresses one after
the other, or a peer that sends a byte now and then; nor the time until other callers' work is done. So the caller
waits with a deadline, and a thread does the work.
"""

import asyncio
import os
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import Any, Generic, TypeVar

IDLE_S = 10.0
"""Seconds that a thread waits for more work before it ends. Its resource stays as it is."""

Resource = TypeVar("Resource")


@dataclass(frozen=True, slots=True, eq=False)
class _Job(Generic[Resource]):
    work: Callable[[Resource, float], None]
    deadline: float
    """By `time.monotonic`."""
    future: "Future[None]" = field(default_factory=Future)

    def run(self, resource: Resource) -> None:
        if not self.future.set_running_or_notify_cancel():
            return
        try:
            self.work(resource, self.deadline)
        except BaseException as error:  # noqa: BLE001 - the caller that waits raises it
            self.future.set_exception(error)
        else:
            self.future.set_result(None)


@dataclass(slots=True, eq=False)
class _Worker(Generic[Resource]):
    """A thread's resource, which no other thread uses, and its deadline."""

    resource: Resource
    due: float = float("inf")
    """The deadline of its work, by `time.monotonic`; infinite when it has none."""


class SerialExecutor(Generic[Resource]):
    """Runs work on a resource, one piece after the other, in the order of the calls.

    It has one thread, which starts when there is work and ends after `IDLE_S` without any. A thread whose work is
    not done by its deadline is abandoned with its resource, and another thread with another resource goes on. A
    forked process makes a resource of its own.

    Parameters:
        make: makes a resource. It must not block.
        discard: releases an abandoned resource, once its work has ended.
    """

    def __init__(self, make: Callable[[], Resource], discard: Callable[[Resource], None]) -> None:
        self._make = make
        self._discard = discard
        self.begin_anew()
        _executors.add(self)

    def run(self, work: Callable[[Resource, float], None], timeout_s: float) -> None:
        """Run work and wait until it is done. An error that it raises is raised here.

        Parameters:
            work: gets the resource and its deadline by `time.monotonic`. It must not raise a `TimeoutError`.
            timeout_s: seconds to wait, its turn included.

        Raises:
            TimeoutError: it is not done in time. If it has not begun, it never will.
        """
        future = self._submit(work, timeout_s)
        try:
            future.result(timeout_s)
        except TimeoutError:
            self._give_up(future)
            raise

    async def run_async(self, work: Callable[[Resource, float], None], timeout_s: float) -> None:
        """Do as `run`, without blocking the event loop. Work that is cancelled before it began never will."""
        future = self._submit(work, timeout_s)
        try:
            async with asyncio.timeout(timeout_s):
                await asyncio.wrap_future(future)
        except TimeoutError:
            self._give_up(future)
            raise

    def rest(self) -> None:
        """Let the thread end as soon as there is nothing to do. More work starts another thread."""
        self._queue.put(None)

    def begin_anew(self) -> None:
        """Forget the thread and its work, and make another resource.

        A forked process has neither the thread nor, maybe, the one that would release the lock.
        """
        self._lock = threading.Lock()
        self._queue: SimpleQueue[_Job[Resource] | None] = SimpleQueue()
        self._resource = self._make()
        self._worker: _Worker[Resource] | None = None

    def _submit(self, work: Callable[[Resource, float], None], timeout_s: float) -> "Future[None]":
        job = _Job(work, time.monotonic() + timeout_s)
        with self._lock:
            if self._worker is None:
                self._start()
            self._queue.put(job)
        return job.future

    def _start(self) -> None:
        worker = _Worker(self._resource)
        # A daemon: a broker that does not answer must not keep the process from ending.
        threading.Thread(target=self._serve, args=(worker,), name="publisher", daemon=True).start()
        self._worker = worker

    def _give_up(self, future: "Future[Any]") -> None:
        future.cancel()
        with self._lock:
            if self._worker is None or self._worker.due > time.monotonic():
                return
            self._resource = self._make()
            self._worker = None
            if not self._queue.empty():
                self._start()

    def _serve(self, worker: _Worker[Resource]) -> None:
        while self._serve_next(worker):
            pass

    def _serve_next(self, worker: _Worker[Resource]) -> bool:
        """Run the next job. Return whether this thread goes on."""
        job = self._next()
        if job is None:
            return False
        worker.due = job.deadline
        job.run(worker.resource)
        with self._lock:
            worker.due = float("inf")
            if self._worker is worker:
                return True
        self._discard(worker.resource)
        return False

    def _next(self) -> "_Job[Resource] | None":
        """Return the next job; None when the thread ends, because there was none for a while."""
        while True:
            with suppress(Empty):
                if (job := self._queue.get(timeout=IDLE_S)) is not None:
                    return job
            with self._lock:
                if self._queue.empty():
                    self._worker = None
                    return None


_executors: "weakref.WeakSet[SerialExecutor[Any]]" = weakref.WeakSet()


def begin_anew() -> None:
    """Let every executor of this process begin anew. A forked process does this by itself."""
    for executor in _executors:
        executor.begin_anew()


os.register_at_fork(after_in_child=begin_anew)
