"""Supervises the parts of the running system (docs/decisions/0016).

A part that ends is restarted after a pause, which grows with each end in a row. A part that keeps ending is
given up, and the whole system stops.
"""

import signal
import time
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from events.errors import InvigilatorError

PAUSES_S = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0)
"""Seconds before a restart: after the first end in a row, after the second, and so on. The last value repeats."""
KEEPS_ENDING = 6
"""The number of ends in a row after which an indispensable part is given up.

The pauses between six ends add up to 8 seconds, so a person soon learns that, say, a setting must be corrected.
"""
GOOD_RUN_S = 60.0
"""A run of this many seconds resets the count of ends in a row."""
SIGNALS = {number.value: number.name for number in signal.Signals}


class PartEndedError(InvigilatorError):
    """A part of the system could not be kept running, so the whole system was stopped."""

    code = "part_ended"


class Process(Protocol):
    """What can be asked whether it has ended."""

    def poll(self) -> int | None:
        """Return the exit status, negative for a signal, or None while it runs."""


class Running(Protocol):
    """A started process and the resources that belong to it."""

    @property
    def process(self) -> Process:
        """The process."""

    def finish(self) -> None:
        """Release what is left after the process has ended."""


R = TypeVar("R", bound=Running)


class Part(Generic[R]):
    """One supervised part of the system. `check` starts it, and restarts it after each end.

    Parameters:
        name: the part's name in messages.
        start: starts the part. An `OSError` counts as an end.
        report: receives one line of text for each end.
        running: the part, if it has been started already.
        indispensable: True if the system stops when the part keeps ending. False if it is restarted without limit.
    """

    def __init__(
        self,
        name: str,
        start: Callable[[], R],
        report: Callable[[str], None],
        *,
        running: R | None = None,
        indispensable: bool = True,
    ) -> None:
        self.running = running
        self._name = name
        self._start = start
        self._report = report
        self._indispensable = indispensable
        self._ends = 0  # in a row
        self._began = self._due = time.monotonic()

    def check(self) -> None:
        """Start the part if it is due, and notice whether it has ended. Call this a few times a second.

        Raises:
            PartEndedError: an indispensable part keeps ending. The message says how and how often it ended.
        """
        if self.running is None:
            if time.monotonic() >= self._due:
                self._begin()
        elif (status := self.running.process.poll()) is not None:
            self.running.finish()
            self.running = None
            self._failed(f"ended by itself ({how_it_ended(status)})")

    def _begin(self) -> None:
        self._began = time.monotonic()
        try:
            self.running = self._start()
        except OSError as error:
            self._failed(f"could not be started ({error.strerror})")

    def _failed(self, what: str) -> None:
        now = time.monotonic()
        self._ends = 1 if now - self._began >= GOOD_RUN_S else self._ends + 1
        if self._indispensable and self._ends >= KEEPS_ENDING:
            raise PartEndedError(f"{self._name} {what} {self._ends} times in a row: the system was stopped")
        pause_s = PAUSES_S[min(self._ends, len(PAUSES_S)) - 1]
        self._due = now + pause_s
        self._report(f"{self._name} {what}: it is started again in {pause_s:g} s")


def how_it_ended(status: int) -> str:
    """Describe in words how a process ended, given its status in the form of `Popen.returncode`."""
    return f"status {status}" if status >= 0 else f"killed by {SIGNALS.get(-status, f'signal {-status}')}"
