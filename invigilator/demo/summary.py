"""Prints the tables and the verdict at the end of the demo."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from invigilator.demo.reference import Result
from invigilator.demo.snapshot import Snapshot

DIFFERENCES_SHOWN = 10


@dataclass(frozen=True, slots=True)
class Numbers:
    """The numbers that the summary shows and that are not part of a snapshot."""

    statuses: Mapping[str, int]
    effects: Mapping[tuple[str, str], int]
    tries: Mapping[str, int]
    calls: Counter[Result]
    mails: int
    """The number of all received mails, copies included."""


def show_summary(console: Console, snapshot: Snapshot, numbers: Numbers) -> None:
    """Print the tables of a session's results."""
    console.print(_table("attempts", ("status", "attempts"), numbers.statuses.items()))
    console.print(_table("commands", ("outcome", "commands"), Counter(snapshot.outcomes.values()).items()))
    console.print(_table("quarantine", ("code", "messages"), snapshot.quarantine.items()))
    console.print(_effects(numbers.effects))
    console.print(_table("tries", ("result", "tries"), numbers.tries.items()))
    distinct = sum(snapshot.mails.values())
    mails = {"distinct": distinct, "duplicates": numbers.mails - distinct}
    console.print(_table("mails received", ("", "mails"), mails.items(), total=False))
    console.print(_table("calls to the LMS", ("", "calls"), _calls(numbers.calls).items(), total=False))


def _table(title: str, head: Sequence[str], rows: Iterable[tuple[str, int]], *, total: bool = True) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column(head[0], min_width=36)
    table.add_column(head[1], justify="right", min_width=9)
    ordered = sorted(rows) if total else list(rows)
    for name, count in ordered:
        table.add_row(name, str(count))
    if total:
        table.add_section()
        table.add_row("total", str(sum(count for _, count in ordered)))
    return table


def _effects(effects: Mapping[tuple[str, str], int]) -> Table:
    states = sorted({state for _, state in effects})
    table = Table(title="effects", title_justify="left")
    table.add_column("kind", min_width=24)
    for state in states:
        table.add_column(state, justify="right", min_width=9)
    for kind in sorted({kind for kind, _ in effects}):
        table.add_row(kind, *(str(effects.get((kind, state), 0)) for state in states))
    return table


def _calls(calls: Counter[Result]) -> dict[str, int]:
    return {
        "made": calls.total(),
        "answered 503 on purpose": calls[Result.FAILED],
        "duplicates suppressed": calls[Result.DUPLICATE],
        "late ones dropped": calls[Result.LATE],
        "refused": calls[Result.REFUSED],
    }


def show_reconciliation(console: Console, learners: int, requirements: int, found: Sequence[str]) -> None:
    """Print the verdict and the first differences.

    Parameters:
        console: where to print.
        learners: the number of learners that were compared.
        requirements: the number of credit requirements that were compared.
        found: one line for each difference.
    """
    ending = "difference" if len(found) == 1 else "differences"
    console.print(
        f"reconciliation: {learners} learners, {requirements} credit requirements compared: "
        f"{len(found)} {ending}",
        style="bold red" if found else "bold green",
        highlight=False,
        soft_wrap=True,
    )
    console.print(
        "(and, one by one: mails, resets, attempts with their histories, outcomes, quarantine, effects)",
        highlight=False,
        soft_wrap=True,
    )
    for line in found[:DIFFERENCES_SHOWN]:
        console.print(f"  {line}", highlight=False, soft_wrap=True, markup=False)
    if len(found) > DIFFERENCES_SHOWN:
        console.print(f"  and {len(found) - DIFFERENCES_SHOWN} more", highlight=False)
