"""How far a session has come: counted, shown live, and watched for standing still."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from events.errors import InvigilatorError

LINE_EVERY_S = 5.0  # where there is no terminal
STALLED_AFTER_S = 60.0


class StalledError(InvigilatorError):
    """Nothing has moved for too long."""

    code = "stalled"


@dataclass(frozen=True, slots=True)
class Counts:
    """How much there is of everything; or, as a goal, how much there must be."""

    published: int = 0
    committed: int = 0
    quarantined: int = 0
    effects: int = 0
    """Effects that are done or superseded."""
    unfinished: int = 0
    """Effects that wait or run."""
    tries: int = 0
    mails: int = 0

    def is_settled(self, goal: "Counts") -> bool:
        """Whether everything has arrived and nothing is left to do."""
        return (
            self.published >= goal.published
            and self.committed >= goal.committed
            and self.quarantined >= goal.quarantined
            and not self.unfinished
        )

    def missing(self, goal: "Counts") -> str:
        """What is not there yet, in words."""
        gaps = {
            "messages not published": goal.published - self.published,
            "commands without an outcome": goal.committed - self.committed,
            "malformed messages not in quarantine": goal.quarantined - self.quarantined,
            "effects not done": self.unfinished,
        }
        return ", ".join(f"{count} {what}" for what, count in gaps.items() if count > 0)

    def line(self, goal: "Counts") -> str:
        """Everything in one line."""
        return (
            f"published {self.published}/{goal.published}, committed {self.committed}/{goal.committed}, "
            f"effects {self.effects}/{goal.effects}, tries {self.tries}, mails {self.mails}/{goal.mails}"
        )


@dataclass(slots=True)
class Patience:
    """Ends when nothing changes.

    Parameters:
        goal: what there must be.
        clock: seconds that only grow.
    """

    goal: Counts
    clock: Callable[[], float] = time.monotonic
    _last: Counts | None = None
    _since: float = 0.0

    def see(self, counts: Counts) -> None:
        """Take note of how far it has come.

        Raises:
            StalledError: no further than `STALLED_AFTER_S` seconds ago; says what is stuck.
        """
        if counts != self._last:
            self._last, self._since = counts, self.clock()
        elif self.clock() - self._since >= STALLED_AFTER_S:
            raise StalledError(f"nothing has moved for {STALLED_AFTER_S:.0f} s: {counts.missing(self.goal)}")


Show = Callable[[Counts], None]


@contextmanager
def shown(console: Console, goal: Counts) -> Iterator[Show]:
    """Show counts as they come: bars on a terminal, else a line now and then."""
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
