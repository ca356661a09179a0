"""One answer for all who ask at the same time. It comes from a thread of its own, which may hang."""

import asyncio
import math
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Generic, TypeVar

from worker.threads import begin

T = TypeVar("T")


class SharedAnswer(Generic[T]):
    """Asks a question, once for all who ask meanwhile. Safe to share between threads.

    Parameters:
        ask: asks it.

    Example:
        >>> SharedAnswer(lambda: 6 * 7).begun().result(timeout=60)
        42
    """

    def __init__(self, ask: Callable[[], T]) -> None:
        self._ask = ask
        self._lock = threading.Lock()
        self._answer: Future[T] | None = None
        self._came_at = -math.inf

    def begun(self, kept_s: float = 0.0) -> Future[T]:
        """Return the answer, which may still be on its way. What hangs is not asked again before it has ended.

        Parameters:
            kept_s: seconds for which an answer is given again.
        """
        with self._lock:
            if self._answer is None or (self._answer.done() and time.monotonic() - self._came_at >= kept_s):
                self._answer = begin(self._run)
            return self._answer

    async def within(self, seconds: float, kept_s: float) -> T:
        """Wait for the answer. Who waits holds no thread.

        Parameters:
            seconds: how long to wait at most.
            kept_s: seconds for which an answer is given again.

        Raises:
            TimeoutError: there is none yet.
            Exception: what asking raises.
        """
        async with asyncio.timeout(seconds):
            return await asyncio.wrap_future(self.begun(kept_s))

    def _run(self) -> T:
        try:
            return self._ask()
        finally:
            self._came_at = time.monotonic()
