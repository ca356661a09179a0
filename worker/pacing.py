"""Paces rounds of work: the first few begin at once, and then one for each interval.

A round serves everybody who has come meanwhile, so few rounds are cheap. But whoever comes while nothing is going
on need not wait for a crowd that does not come.
"""

import time

BURST = 10
"""Rounds that may begin at once. A command and everything that follows from it need fewer."""


class Pacer:
    """Says how long a round should wait. Not safe to share between threads.

    It is a token bucket, kept as the generic cell rate algorithm keeps it: a moment instead of a number of tokens.

    Example:
        >>> pacer = Pacer(interval_s=3600.0, burst=2)
        >>> for _ in range(2):
        ...     assert pacer.pause_s() == 0.0
        ...     pacer.begin()
        >>> pacer.pause_s() > 3500.0
        True
    """

    def __init__(self, interval_s: float, burst: int = BURST) -> None:
        """Make a pacer of rounds that have not begun.

        Parameters:
            interval_s: seconds for each round, in the long run.
            burst: so many rounds may begin at once after a rest.
        """
        self._interval_s = interval_s
        self._tolerance_s = (burst - 1) * interval_s
        self._due = time.monotonic()

    def pause_s(self) -> float:
        """Seconds until the next round may begin."""
        return max(0.0, self._due - self._tolerance_s - time.monotonic())

    def begin(self) -> None:
        """Note that a round begins now."""
        self._due = max(self._due, time.monotonic()) + self._interval_s
