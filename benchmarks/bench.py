"""What every group needs: the engines, a folder for logs, sizes; and the alternation of the contestants."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import ours
from benchmarks.engines import Broker, Engines
from benchmarks.ours import Ours

Figures = dict[str, float]
OTHERS = 0.4
"""CPUs that others may use before it is worth a warning."""
WARM_UP, FIRST = 0, 1
"""Rounds: one that does not count, and the first that does."""


@dataclass(frozen=True, slots=True)
class Contestant:
    """Somebody to be measured: `run` does it once, from the start, and returns what was measured."""

    name: str
    run: Callable[[], Figures]


@dataclass(frozen=True, slots=True)
class Sample:
    """What one run of a contestant measured. Round 0 warms up and does not count."""

    group: str
    contestant: str
    round: int
    figures: Figures


@dataclass
class Samples:
    """Everything that was measured, and how it is summed up."""

    all: list[Sample] = field(default_factory=list)

    def values(self, group: str, contestant: str, figure: str) -> dict[int, float]:
        """A figure by round; the warm-up is left out."""
        return {
            sample.round: sample.figures[figure]
            for sample in self.all
            if (sample.group, sample.contestant) == (group, contestant)
            and sample.round != WARM_UP
            and figure in sample.figures
        }

    def ratios(
        self, group: str, figure: str, one: str, other: str, other_figure: str | None = None
    ) -> list[float]:
        """One contestant's figure divided by another's, in each round."""
        return quotients(self.values(group, one, figure), self.values(group, other, other_figure or figure))

    def contestants(self, group: str) -> list[str]:
        """Who took part, in order."""
        return list(dict.fromkeys(sample.contestant for sample in self.all if sample.group == group))

    def groups(self) -> list[str]:
        """Which groups were measured, in order."""
        return list(dict.fromkeys(sample.group for sample in self.all if sample.round != WARM_UP))

    def as_json(self) -> list[dict[str, Any]]:
        """For the results' file."""
        return [asdict(sample) for sample in self.all]


@dataclass(frozen=True, slots=True)
class Bench:
    """One run of the benchmark.

    Parameters:
        folder: temporary, for logs.
        quick: small sizes.
        rounds: that count.
        scale: of the full tables, 1 is five million attempts.
        say: prints a line of progress.
    """

    engines: Engines
    folder: Path
    quick: bool
    rounds: int
    scale: float
    say: Callable[[str], None]
    versions: dict[str, str] = field(default_factory=dict)
    """Of what the contestants say that they use."""

    @property
    def brokers(self) -> Sequence[Broker]:
        """Those that run."""
        return list(self.engines.brokers.values())

    def size(self, full: int, quick: int) -> int:
        """How much to do."""
        return quick if self.quick else full

    @contextmanager
    def ours(
        self,
        broker: Broker,
        learners: int,
        settings: Mapping[str, object] | None = None,
        database_url: str | None = None,
    ) -> Iterator[Ours]:
        """Our system on a fresh database, or on this one, that knows so many new learners; no process runs yet."""
        database = self.engines.database
        with ExitStack() as stack:
            url = database_url or stack.enter_context(database.fresh(ours.TEMPLATE, ours.prepare))
            system = stack.enter_context(Ours(database, url, broker, self.folder, settings or {}))
            system.add_learners(learners)
            system.checkpoint()
            yield system

    def alternate(
        self, group: str, contestants: Sequence[Contestant], rounds: range, samples: Samples
    ) -> None:
        """Run A B C … A B C …, in each of the rounds."""
        for number in rounds:
            for contestant in contestants:
                figures = contestant.run()
                samples.all.append(Sample(group, contestant.name, number, figures))
                title = f"round {number}" if number else "warm-up"
                self.say(f"{group}, {title}, {contestant.name}: {_brief(figures)}")
                if figures.get("cpus.others", 0) > OTHERS:
                    self.say(f"  meanwhile {figures['cpus.others']:.1f} CPUs were busy with something else")


def _brief(figures: Figures) -> str:
    shown = {name: value for name, value in figures.items() if "." not in name}
    return ", ".join(f"{name} {value:.4g}" for name, value in shown.items())


def quotients(top: Mapping[int, float], bottom: Mapping[int, float]) -> list[float]:
    """One figure divided by another, in each round that has both."""
    return [top[number] / bottom[number] for number in top.keys() & bottom.keys() if bottom[number]]


def spread(values: Sequence[float]) -> tuple[float, float, float]:
    """Median, least, most."""
    return median(values), min(values), max(values)
