"""How long PostgreSQL takes to flush a commit to disk."""

from collections.abc import Callable, Sequence
from typing import Any

_FLUSHES = "SELECT sum(fsyncs), sum(fsync_time) FROM pg_stat_io WHERE object = 'wal'"


class Flushes:
    """The flushes since the object was made."""

    def __init__(self, rows: Callable[[str], Sequence[Any]]) -> None:
        """Note how many there were so far.

        Parameters:
            rows: runs a query, and returns its rows.
        """
        self._rows = rows
        self._before = self._now()

    def mean_s(self) -> float:
        """Return the mean time of one, in seconds."""
        number, milliseconds = self._now()
        return (milliseconds - self._before[1]) / 1000 / max(1.0, number - self._before[0])

    def _now(self) -> tuple[float, float]:
        [[number, milliseconds]] = self._rows(_FLUSHES)
        return float(number), float(milliseconds)
