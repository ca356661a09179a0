"""How long the batches of this process took, until the sign of life adds that to the totals."""

import bisect
import threading
from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from sqlalchemy import Connection

from db import totals

BUCKETS_S: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""The upper bounds of the buckets of durations, in seconds. One more bucket has no bound."""


@dataclass(slots=True)
class BatchTimes:
    """How long batches took in this process, until that is added to the totals. Safe to share between threads."""

    _counts: Counter[totals.Key] = field(default_factory=Counter)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def observe(self, seconds: float, messages: int) -> None:
        """Count a batch of so many messages that took so many seconds."""
        place = bisect.bisect_left(BUCKETS_S, seconds)
        bound = f"{BUCKETS_S[place]:g}" if place < len(BUCKETS_S) else "+Inf"
        with self._lock:
            self._counts[totals.BATCHES, bound] += 1
            self._counts[(totals.BATCHES_MESSAGES,)] += messages
            self._counts[(totals.BATCHES_SECONDS,)] += seconds  # type: ignore[assignment]

    def flush(self, connection: Connection) -> None:
        """Add what was observed to the totals, in the caller's transaction. If that fails, it is not counted."""
        with self._lock:
            counts, self._counts = self._counts, Counter()
        totals.add(connection, counts)


batch_times: Final = BatchTimes()
"""Of this process."""
