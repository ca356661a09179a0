"""A limit of concurrent calls for each service, so that a backlog does not stampede it."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from worker.kinds import QUEUES, SERVICES, EffectKind

PATIENCE_S = 1.0
"""How long a thread waits for a slot before it lets another kind have its turn."""
GROW_S = 30.0
"""How long a service that took no more keeps its smaller number of slots; then it gets one more, and so on."""
EMAIL = QUEUES[EffectKind.SEND_STATUS_EMAIL]


class Slots:
    """So many effects of each service at once in this process. Safe to share between threads."""

    def __init__(self, calls: int, connections: int) -> None:
        """Parameters:
        calls: how many calls to one service at once.
        connections: how many conversations with the mail server at once, if that is fewer.
        """
        most = dict.fromkeys(SERVICES, calls) | {EMAIL: min(calls, connections)}
        self._limits = {queue: _Limit(number) for queue, number in most.items()}

    @contextmanager
    def taken(self, kind: str) -> Iterator[bool]:
        """Whether there is a slot, which is ours meanwhile. Kinds that call nobody always have one."""
        limit = self._limits.get(QUEUES[kind])
        if limit is None:
            yield True
        elif limit.take(PATIENCE_S):
            try:
                yield True
            finally:
                limit.give_back()
        else:
            yield False

    def shrink(self, kind: str, number: int) -> None:
        """Have so many slots for a while, if there are more: the service takes no more calls at once."""
        self._limits[QUEUES[kind]].shrink(number)


class _Limit:
    """A semaphore that can shrink, and grows again by itself."""

    def __init__(self, most: int) -> None:
        self._most = self._size = most
        self._taken = 0
        self._sized_at = time.monotonic()
        self._changed = threading.Condition()

    def take(self, patience_s: float) -> bool:
        with self._changed:
            free = self._changed.wait_for(self._is_free, patience_s)
            self._taken += free
            return free

    def give_back(self) -> None:
        with self._changed:
            self._taken -= 1
            self._changed.notify()

    def shrink(self, number: int) -> None:
        with self._changed:
            self._size = min(self._size, number)
            self._sized_at = time.monotonic()

    def _is_free(self) -> bool:
        now = time.monotonic()
        if self._size < self._most and now - self._sized_at >= GROW_S:
            self._size += 1
            self._sized_at = now
        return self._taken < self._size
