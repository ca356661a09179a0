"""Paces rounds of work: the first few begin at once, and each of the others after a pause.

A round serves everybody who has come meanwhile, so few rounds are cheap. But whoever comes while nothing is going
on need not wait for a crowd that does not come.
"""

import math
import time

BURST = 10
"""Rounds that may begin at once. A command and everything that follows from it need fewer."""
PAUSE = 4
"""The pause after a round, as a multiple of the time that it took, unless the next token comes sooner."""


class Pacer:
    """Says how long a round should wait. Not safe to share between threads.

    It is a token bucket, kept as the generic cell rate algorithm keeps it: a moment instead of a number of tokens.
    When the bucket is empty, a round waits for the next token, or for `PAUSE` times as long as the round before
    took, whichever is shorter.

    Example:
        >>> pacer = Pacer(interval_s=3600.0, burst=2)
        >>> for _ in range(2):
        ...     assert pacer.pause_s() == 0.0
        ...     pacer.begin()
        >>> pacer.pause_s() > 3500.0
        True
        >>> pacer.end()
        >>> pacer.pause_s() < 1.0
        True
    """

    def __init__(self, interval_s: float, burst: int = BURST) -> None:
        """Make a pacer of rounds that have not begun.

        Parameters:
            interval_s: seconds after which the bucket gets another token, and so the longest pause.
            burst: so many rounds may begin at once after a rest.
        """
        self._interval_s = interval_s
        self._tolerance_s = (burst - 1) * interval_s
        self._due = self._began = time.monotonic()
        self._rested_at = math.inf

    def pause_s(self) -> float:
        """Seconds until the next round may begin."""
        return max(0.0, min(self._due - self._tolerance_s, self._rested_at) - time.monotonic())

    def begin(self) -> None:
        """Note that a round begins now."""
        self._began = now = time.monotonic()
        # A round that begins without a token leaves the bucket empty, and owes nothing.
        self._due = min(max(self._due, now), now + self._tolerance_s) + self._interval_s
        self._rested_at = math.inf

    def end(self) -> None:
        """Note that the round has ended. Rounds whose end is never noted are an interval apart."""
        now = time.monotonic()
        self._rested_at = now + PAUSE * (now - self._began)
