"""The progress of a session: counts it, shows it live, and notices when it stalls."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from events.errors import InvigilatorError

LINE_EVERY_S = 5.0  # seconds between two lines when the output is no terminal
STALLED_AFTER_S = 60.0


class StalledError(InvigilatorError):
    """The session has made no progress for `STALLED_AFTER_S` seconds."""

    code = "stalled"


@dataclass(frozen=True, slots=True)
class Counts:
    """Counts of a session: either what has been reached, or the goal."""

    published: int = 0
    committed: int = 0
    quarantined: int = 0
    effects: int = 0
    """The effects that are done or superseded."""
    unfinished: int = 0
    """The effects that are pending or running."""
    tries: int = 0
    mails: int = 0

    def is_settled(self, goal: "Counts") -> bool:
        """Return whether every message of the goal has been handled and no effect is unfinished."""
        return (
            self.published >= goal.published
            and self.committed >= goal.committed
            and self.quarantined >= goal.quarantined
            and not self.unfinished
        )

    def missing(self, goal: "Counts") -> str:
        """Describe in words what is missing to reach the goal."""
        gaps = {
            "messages not published": goal.published - self.published,
            "commands without an outcome": goal.committed - self.committed,
            "malformed messages not in quarantine": goal.quarantined - self.quarantined,
            "effects not done": self.unfinished,
        }
        return ", ".join(f"{count} {what}" for what, count in gaps.items() if count > 0)

    def line(self, goal: "Counts") -> str:
        """Return all counts as one line of text."""
        return (
            f"published {self.published}/{goal.published}, committed {self.committed}/{goal.committed}, "
            f"effects {self.effects}/{goal.effects}, tries {self.tries}, mails {self.mails}/{goal.mails}"
        )


@dataclass(slots=True)
class StallDetector:
    """Raises an error when the counts have not changed for `STALLED_AFTER_S` seconds.

    Parameters:
        goal: the counts that the session must reach.
        clock: returns seconds on a monotonic clock.
    """

    goal: Counts
    clock: Callable[[], float] = time.monotonic
    _last: Counts | None = None
    _since: float = 0.0

    def check(self, counts: Counts) -> None:
        """Compare the counts with the last ones.

        Raises:
            StalledError: the counts are unchanged for `STALLED_AFTER_S` seconds. The message says what is missing.
        """
        if counts != self._last:
            self._last, self._since = counts, self.clock()
        elif self.clock() - self._since >= STALLED_AFTER_S:
            raise StalledError(f"nothing has moved for {STALLED_AFTER_S:.0f} s: {counts.missing(self.goal)}")


Show = Callable[[Counts], None]


@contextmanager
def show_progress(console: Console, goal: Counts) -> Iterator[Show]:
    """Yield a function that shows counts: as bars on a terminal, or else as a line every `LINE_EVERY_S` seconds."""
    if console.is_terminal:
        with _bars(console) as progress:
            yield _Bars(progress, goal)
    else:
        yield _Lines(console, goal)


def _bars(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description:<10}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[note]}"),
        console=console,
    )


class _Bars:
    def __init__(self, progress: Progress, goal: Counts) -> None:
        self._progress = progress
        self._tasks: dict[str, TaskID] = {
            name: progress.add_task(name, total=getattr(goal, name), note="")
            for name in ("published", "committed", "effects", "mails")
        }

    def __call__(self, counts: Counts) -> None:
        for name, task in self._tasks.items():
            note = f"{counts.tries} tries" if name == "effects" else ""
            self._progress.update(task, completed=getattr(counts, name), note=note)


class _Lines:
    def __init__(self, console: Console, goal: Counts) -> None:
        self._console = console
        self._goal = goal
        self._next = time.monotonic()

    def __call__(self, counts: Counts) -> None:
        if time.monotonic() >= self._next or counts.is_settled(self._goal):
            self._next = time.monotonic() + LINE_EVERY_S
            self._console.print(counts.line(self._goal), highlight=False, soft_wrap=True)
