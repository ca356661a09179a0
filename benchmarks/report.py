"""Writes the part of docs/performance.md between the markers, from benchmarks/results.json.

`python -m benchmarks.report` writes it again from the last results, without a new measurement.
"""

import inspect
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from benchmarks import charts, results
from benchmarks.bench import Samples, spread
from benchmarks.goals import Check, beside, checks
from benchmarks.groups import ALL, memory, shards, whole
from benchmarks.results import Results
from benchmarks.running import ROOT
from benchmarks.table import columns_of

DOCUMENT = ROOT / "docs" / "performance.md"
CHARTS = ROOT / "docs" / "performance"
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
PER_PROCESS = {
    whole.NAME: {"cpu_ms_per_transition.": "CPU ms, "},
    shards.NAME: {"cpus.": "CPUs of "},
    memory.NAME: {"early_rss_mb.": "early MB, ", "late_rss_mb.": "late MB, "},
}
"""By group: the prefix of the figures of single processes → the prefix of their column titles."""
CAPTIONS = {
    "cpu.svg": "What a transition costs, by process",
    "batches.svg": "The commands stage by the size of its batches",
    "latency.svg": "How long a command takes",
}


def write() -> None:
    """Replace the part of the document between the markers. The rest stays as it is."""
    found = results.read()
    pictures = charts.draw(found.samples, CHARTS)
    before, _, rest = DOCUMENT.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    DOCUMENT.write_text(before + "\n".join([BEGIN, "", *_lines(found, pictures), END]) + after)


def _lines(found: Results, pictures: Sequence[str]) -> Iterator[str]:
    samples = found.samples
    not_warmed_up = ", ".join(f"*{group.NAME}*" for group in ALL if hasattr(group, "ROUNDS"))
    yield (
        f"One warm-up round (none in {not_warmed_up}), and then those that count, alternating. Each figure is the "
        "median of the rounds, with the least and the most of them. CPU is summed over all processes that do the "
        "work: ours, PostgreSQL, the broker, the publisher. Memory is proportional: what several of these "
        "processes share counts once.\n"
    )
    yield "### Goals\n"
    yield from _checks(checks(samples))
    yield "What the same would say of code written by hand, and of plain Celery, procrastinate and DBOS.\n"
    yield from _checks(beside(samples))
    for name, reason in found.left_out.items():
        yield f"Not measured: `{name}`: {reason}.\n"
    for picture in pictures:
        yield f"![{CAPTIONS[picture]}](performance/{picture})\n"
    for group in ALL:
        if group.NAME in samples.groups():
            yield f"### {group.NAME}\n"
            yield (inspect.getdoc(group) or "") + "\n"
            yield _measured(found.runs[group.NAME])
            yield from _group(samples, group.NAME)
    yield "### The machines and the versions\n"
    for description, groups in _machines(found).items():
        yield f"{', '.join(groups)}: {description}\n"


def _measured(run: Mapping[str, Any]) -> str:
    return (
        f"Measured on {run['date']} by `{run['command'].strip()}` at `{run['commit']}`, {run['rounds']} rounds. "
        f"The machine's load in the quarter of an hour before was {run['machine']['load_before']}.\n"
    )


def _machines(found: Results) -> dict[str, list[str]]:
    """Return what the groups were measured on → their names."""
    machines = defaultdict[str, list[str]](list)
    for group, run in found.runs.items():
        machine = run["machine"]
        versions = ", ".join(f"{name} {version}" for name, version in run["versions"].items())
        machines[
            f"{machine['cpu']}, {machine['cpus']} CPUs, {machine['memory_gb']} GB, {machine['system']}. {versions}."
        ].append(f"*{group}*")
    return machines


def _checks(found: Sequence[Check]) -> Iterator[str]:
    yield "| goal | figure or ratio | wanted | measured | least–most | |"
    yield "|---|---|---|---|---|---|"
    for check in found:
        spread_of = f"{min(check.values):.3g}–{max(check.values):.3g}"
        verdict = "met" if check.is_met else "**missed**"
        wanted = f"{check.side} {check.limit:.3g}"
        yield f"| {check.goal} | {check.title} | {wanted} | {check.value:.3g} | {spread_of} | {verdict} |"
    yield ""


def _group(samples: Samples, group: str) -> Iterator[str]:
    columns = {**columns_of(samples, group), **_more_columns(samples, group)}
    yield "| | " + " | ".join(columns.values()) + " |"
    yield "|---" + "|--:" * len(columns) + "|"
    for contestant in samples.contestants(group):
        cells = (_cell(list(samples.values(group, contestant, figure).values())) for figure in columns)
        yield f"| {contestant} | " + " | ".join(cells) + " |"
    yield ""


def _more_columns(samples: Samples, group: str) -> dict[str, str]:
    """Return the columns for single processes: figure → title."""
    figures = [figure for sample in samples.all if sample.group == group for figure in sample.figures]
    return {
        name: title + name.removeprefix(prefix)
        for prefix, title in PER_PROCESS.get(group, {}).items()
        for name in figures
        if name.startswith(prefix)
    }


def _cell(values: Sequence[float]) -> str:
    if not values:
        return ""
    middle, least, most = spread(values)
    return f"{middle:.3g} ({least:.3g}–{most:.3g})"


if __name__ == "__main__":
    write()
