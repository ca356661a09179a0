"""Limits the concurrent calls to each service and each webhook, so that a backlog does not overrun it."""

import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum

from worker.kinds import QUEUES, EffectKind, Service

PATIENCE_S = 1.0
"""Seconds for which a thread waits for a slot before it takes an effect of another kind."""
LINE_S = 2.0
"""Seconds for which a few threads then go on waiting, so that each slot that is given back is taken at once.

Together with the patience it is no longer than what `invigilator up` grants a worker besides a call's time.
"""
SOON_S = 0.25
"""Seconds for which a thread waits for a slot of a webhook whose slots come back as soon as that."""
GROW_S = 30.0
"""A service that took no more calls at once gets one slot back each time that so many seconds have passed."""


class Slots:
    """The slots for calls in this process, a number for each service. Safe to share between threads."""

    def __init__(self, calls: int, connections: int, threads: int | None = None) -> None:
        """Make as many slots as there may be calls.

        Parameters:
            calls: the number of calls to one service, or to one webhook, at once.
            connections: the number of connections to the mail server at once, if that is smaller.
            threads: of this process. One webhook gets at most half of them, and at most a quarter of them go on
                waiting for slots of services. The default is as many as it may use.
        """
        each = calls if threads is None else max(1, min(calls, threads // 2))
        line = threading.Semaphore(calls if threads is None else threads // 4)
        nobody = threading.Semaphore(0)
        self._webhooks: defaultdict[str, _Limit] = defaultdict(lambda: _Limit(each, nobody))
        self._webhooks_lock = threading.Lock()
        most: dict[StrEnum, int] = {Service.MAILER: min(calls, connections)}
        self._limits = {
            kind.entry.queue: _Limit(most.get(kind.entry.service, calls), line)
            for kind in EffectKind
            if kind.entry.service not in (None, Service.WEBHOOKS)
        }

    @contextmanager
    def taken(self, kind: str, webhook: str | None = None) -> Iterator["Slot | None"]:
        """Take a slot until it is given back, or at the latest until the `with` ends. None: there was none.

        A kind that calls no service always gets one.

        Parameters:
            webhook: the subscriber that is called, if the kind calls webhooks. No thread waits for the slot of a
                slow one, so that others are served.
        """
        limit = self._limits.get(QUEUES[kind]) if webhook is None else self._of_webhook(webhook)
        slot = FREE if limit is None else limit.take(PATIENCE_S if webhook is None else limit.soon_s())
        try:
            yield slot
        finally:
            if slot is not None:
                slot.give_back()

    def shrink(self, kind: str, number: int) -> None:
        """Reduce the slots of a kind's service to a number for a while, because it takes no more calls at once."""
        self._limits[QUEUES[kind]].shrink(number)

    def _of_webhook(self, name: str) -> "_Limit":
        with self._webhooks_lock:
            return self._webhooks[name]


class Slot:
    """A slot that is held. It is given back once, however often that is asked for."""

    def __init__(self, limit: "_Limit | None") -> None:
        self._limit = limit
        self._since = time.monotonic()

    def give_back(self) -> None:
        """Let another thread have it. The thread that holds it does this."""
        limit, self._limit = self._limit, None
        if limit is not None:
            limit.give_back(self)

    def is_early(self) -> bool:
        """Return whether it has not been held for long."""
        return time.monotonic() - self._since <= SOON_S


FREE = Slot(None)
"""The slot of a kind that calls nobody."""


class _Limit:
    """A semaphore that can shrink, and grows again by itself."""

    def __init__(self, most: int, line: threading.Semaphore) -> None:
        self._most = self._size = most
        self._line = line
        self._taken: list[Slot] = []
        self._is_quick = True
        self._sized_at = time.monotonic()
        self._changed = threading.Condition()

    def take(self, patience_s: float) -> Slot | None:
        with self._changed:
            if not self._changed.wait_for(self._is_free, patience_s) and not self._waited_in_line():
                self._is_quick = False
                return None
            slot = Slot(self)
            self._taken.append(slot)
            if self._is_free():  # it has grown
                self._changed.notify()
            return slot

    def _waited_in_line(self) -> bool:
        if not self._line.acquire(blocking=False):
            return False
        try:
            return self._changed.wait_for(self._is_free, LINE_S)
        finally:
            self._line.release()

    def give_back(self, slot: Slot) -> None:
        with self._changed:
            self._taken.remove(slot)
            self._is_quick = slot.is_early()
            self._changed.notify()

    def soon_s(self) -> float:
        """How long to wait for a slot.

        Not at all after one came back late or somebody waited in vain, nor while one is held for long. Otherwise an
        endpoint that answers some calls quickly and holds others would keep all threads.
        """
        with self._changed:
            return SOON_S if self._is_quick and all(slot.is_early() for slot in self._taken) else 0

    def shrink(self, number: int) -> None:
        with self._changed:
            self._size = min(self._size, number)
            self._sized_at = time.monotonic()

    def _is_free(self) -> bool:
        now = time.monotonic()
        if self._size < self._most and now - self._sized_at >= GROW_S:
            self._size += 1
            self._sized_at = now
        return len(self._taken) < self._size
