"""A limit of concurrent calls for each service, so that a backlog does not stampede it."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from db.models import EffectKind
from worker.effects.kinds import QUEUES, SERVICES

PATIENCE_S = 1.0
"""How long a thread waits for a slot before it lets another kind have its turn."""


class Slots:
    """So many effects of each service at once in this process. Safe to share between threads."""

    def __init__(self, calls: int) -> None:
        """`calls`: how many calls to one service at once."""
        self._free = {queue: threading.BoundedSemaphore(calls) for queue in SERVICES}

    @contextmanager
    def taken(self, kind: EffectKind) -> Iterator[bool]:
        """Whether there is a slot, which is ours meanwhile. Kinds that call nobody always have one."""
        free = self._free.get(QUEUES[kind])
        if free is None:
            yield True
        elif free.acquire(timeout=PATIENCE_S):
            try:
                yield True
            finally:
                free.release()
        else:
            yield False
