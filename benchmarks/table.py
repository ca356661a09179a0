"""Prints a table of all figures and a table of the goals."""

from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.table import Table

from benchmarks.bench import Samples, spread
from benchmarks.goals import Check

COLUMNS = {
    "transitions_per_s": "transitions/s",
    "commands_per_s": "commands/s",
    "effects_per_s": "effects/s",
    "events_per_s": "events/s",
    "cpu_ms_per_transition": "CPU ms/transition",
    "cpu_ms_per_command": "CPU ms/command",
    "cpu_ms_per_effect": "CPU ms/effect",
    "cpu_ms_per_event": "CPU ms/event",
    "waits_ms_per_learner": "a learner waits ms",
    "update_ms": "one update ms",
    "commit_p50_ms": "→ committed p50 ms",
    "commit_p95_ms": "p95",
    "commit_p99_ms": "p99",
    "effects_p50_ms": "→ effects done p50 ms",
    "effects_p95_ms": "p95",
    "effects_p99_ms": "p99",
    "cpu_ms_per_call": "CPU ms/call",
    "read_p50_ms": "a read p50 ms",
    "read_p95_ms": "p95",
    "read_p99_ms": "p99",
    "answer_p50_ms": "commit → answer p50 ms",
    "answer_p95_ms": "p95",
    "answer_p99_ms": "p99",
    "pss_mb": "memory MB",
}
WIDTH = 200


def columns_of(samples: Samples, group: str) -> Mapping[str, str]:
    """Return the figures that a contestant of the group has, with their column titles."""
    contestants = samples.contestants(group)
    return {
        figure: title
        for figure, title in COLUMNS.items()
        if any(samples.values(group, contestant, figure) for contestant in contestants)
    }


def print_table(samples: Samples) -> None:
    """Print the median, least and most of each contestant's figures, one line for each figure."""
    table = Table("group", "contestant", "figure", title="median (least–most) of the rounds")
    for title in ("median", "least", "most"):
        table.add_column(title, justify="right")
    for group in samples.groups():
        for contestant in samples.contestants(group):
            for figure, title in columns_of(samples, group).items():
                values = list(samples.values(group, contestant, figure).values())
                if values:
                    table.add_row(group, contestant, title, *(f"{value:.4g}" for value in spread(values)))
        table.add_section()
    Console(width=WIDTH).print(table)


def print_checks(checks: Sequence[Check], baseline: Mapping[str, float] | None = None) -> None:
    """Print the goals, and beside them the committed ratios if `baseline` has any."""
    table = Table("goal", "figure or ratio", title="goals", width=WIDTH)
    for title in (
        "measured",
        "least–most",
        "goal",
        "",
        *(["last committed"] if baseline is not None else []),
    ):
        table.add_column(title, justify="right")
    for check in checks:
        least, most = min(check.values), max(check.values)
        cells = [f"{check.value:.3g}", f"{least:.3g}–{most:.3g}", f"{check.side} {check.limit:.3g}"]
        cells.append("met" if check.is_met else "missed")
        if baseline is not None:
            cells.append(_compared(check.value, baseline.get(check.title)))
        table.add_row(check.goal, check.title, *cells)
    Console(width=WIDTH).print(table)


def _compared(now: float, before: float | None) -> str:
    return "" if before is None else f"{before:.3g} ({now / before - 1:+.0%})"
