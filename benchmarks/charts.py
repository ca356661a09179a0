"""Draws the charts of docs/performance.md."""

from collections.abc import Sequence
from pathlib import Path
from statistics import median

import matplotlib as mpl

mpl.use("svg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from benchmarks.bench import Samples
from benchmarks.goals import BROKERS
from benchmarks.groups import commands, latency, whole

SETTINGS = {"svg.hashsalt": "invigilator", "svg.fonttype": "none", "font.size": 9, "axes.spines.top": False}
COLOURS = {
    "peer": "#b5651d",
    "celery": "#8c6bb1",
    "procrastinate": "#6a51a3",
    "dbos": "#3f007d",
    "postgres": "#336791",
    "valkey": "#c6302b",
    "rabbitmq": "#ff8c1a",
    "publisher": "#bdbdbd",
    "commands": "#2ca25f",
    "relay": "#99d8c9",
    "effects": "#66c2a4",
    "mail": "#005824",
}
PERCENTILES = ("p50", "p95", "p99")


def draw(samples: Samples, folder: Path) -> list[str]:
    """Draw the charts of the measured groups. Return the names of the files in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context({**SETTINGS, "axes.spines.right": False}):
        drawn = {
            "cpu.svg": (_cpu, whole.NAME),
            "batches.svg": (_batches, commands.NAME),
            "latency.svg": (_latency, latency.NAME),
        }
        names = [name for name, (_, group) in drawn.items() if group in samples.groups()]
        for name in names:
            figure, axes = plt.subplots(figsize=(8, 3.6), layout="constrained")
            drawn[name][0](axes, samples)
            figure.savefig(folder / name, metadata={"Date": None})
            plt.close(figure)
    return names


def _middle(samples: Samples, group: str, contestant: str, figure: str) -> float:
    return median(list(samples.values(group, contestant, figure).values()) or [0.0])


def _cpu(axes: Axes, samples: Samples) -> None:
    contestants = samples.contestants(whole.NAME)[::-1]
    left = [0.0] * len(contestants)
    for process, colour in COLOURS.items():
        widths = [
            _middle(samples, whole.NAME, contestant, f"cpu_ms_per_transition.{process}")
            for contestant in contestants
        ]
        if any(widths):
            axes.barh(contestants, widths, left=left, color=colour, label=process)
            left = [start + width for start, width in zip(left, widths, strict=True)]
    axes.set_xlabel("CPU milliseconds of all processes for one transition, its effects included")
    axes.legend(ncols=5, loc="lower center", bbox_to_anchor=(0.4, 1.0), frameon=False)


def _batches(axes: Axes, samples: Samples) -> None:
    for broker, title in BROKERS.items():
        rates = [
            _middle(samples, commands.NAME, commands.ours_name(broker, batch), "commands_per_s")
            for batch in commands.BATCHES
        ]
        if any(rates):
            axes.plot(commands.BATCHES, rates, marker="o", color=COLOURS[broker], label=f"ours on {title}")
    floors = [
        _middle(samples, commands.NAME, commands.floor_name(every), "commands_per_s") for every in (1, 100)
    ]
    axes.plot((1, 100), floors, marker="s", linestyle="--", color=COLOURS["postgres"], label="the floor")
    axes.set_xscale("log")
    axes.set_ylim(bottom=0)
    axes.set_xticks(commands.BATCHES, [str(batch) for batch in commands.BATCHES])
    axes.set_xlabel("commands in one transaction")
    axes.set_ylabel("commands a second")
    axes.legend(frameon=False)


def _latency(axes: Axes, samples: Samples) -> None:
    names = [name for name in samples.contestants(latency.NAME) if name != latency.PEER]
    for number, (what, title) in enumerate((("commit", "committed"), ("effects", "last effect done"))):
        for shade, percentile in zip((0.45, 0.7, 1.0), PERCENTILES, strict=True):
            heights = [_middle(samples, latency.NAME, name, f"{what}_{percentile}_ms") for name in names]
            shift = 0.13 * (3 * number + PERCENTILES.index(percentile))
            bars = {index + shift: height for index, height in enumerate(heights) if height}
            colour = COLOURS["postgres"] if what == "commit" else COLOURS["commands"]
            axes.bar(
                list(bars),
                list(bars.values()),
                0.12,
                color=colour,
                alpha=shade,
                label=f"→ {title}, {percentile}",
            )
    update = _middle(samples, latency.NAME, latency.PEER, "update_ms")
    if update:
        axes.axhline(update, color=COLOURS["peer"], linestyle="--", label="the peer's update, median")
    axes.set_yscale("log")
    axes.set_ylabel("milliseconds from publishing")
    axes.set_xticks([index + 0.32 for index in range(len(names))], _wrapped(names), fontsize=6)
    axes.legend(ncols=4, frameon=False, fontsize=7, loc="lower center", bbox_to_anchor=(0.5, 1.0))


def _wrapped(names: Sequence[str]) -> list[str]:
    return [name.replace(", ", "\n") for name in names]
