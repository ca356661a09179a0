"""What is kept running: a part that ends is started again after a pause, and one that keeps ending is given up."""

import signal
import subprocess
import time
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from events.errors import InvigilatorError

PAUSES_S = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0)
"""Before a part is started again: after its first end, its second in a row, and so on; then always the last one."""
KEEPS_ENDING = 6
"""So many ends in a row are no accident. What a person must mend, a setting say, is told within seconds."""
GOOD_RUN_S = 60.0
"""After a run that long, an end is the first one of a row."""
SIGNALS = {number.value: number.name for number in signal.Signals}


class PartEndedError(InvigilatorError):
    """A part of the system ended for good, so everything was stopped."""

    code = "part_ended"


class Running(Protocol):
    """A process that has been started, and whatever belongs to it."""

    process: "subprocess.Popen[bytes]"

    def finish(self) -> None:
        """End and collect what is left of it."""


R = TypeVar("R", bound=Running)


class Part(Generic[R]):
    """One part of the system. `check` starts it, at first and whenever it has ended.

    Parameters:
        name: what people call it.
        start: starts it; an `OSError` counts as an end.
        report: takes a line for people.
        running: it, if it has been started already.
        indispensable: whether it is given up when it keeps ending; else it is tried for ever.
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
        """Take note if it has ended, and start it if it is time to. Call this a few times a second.

        Raises:
            PartEndedError: it keeps ending; says how, and how often.
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
    """How a process ended, in words, by its status as `Popen.returncode` has it."""
    return f"status {status}" if status >= 0 else f"killed by {SIGNALS.get(-status, f'signal {-status}')}"
