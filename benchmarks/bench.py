"""The run of the benchmark: engines, sizes, samples, and the alternation of the contestants."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from benchmarks import ours
from benchmarks.engines import Broker, Engines
from benchmarks.ours import Ours

Figures = dict[str, float]
OTHERS = 0.4
"""The number of CPUs that other programs may use without a warning."""
WARM_UP, FIRST = 0, 1
"""The numbers of the warm-up round, which does not count, and of the first round that counts."""


@dataclass(frozen=True, slots=True)
class Contestant:
    """A system to measure. `run` does the whole work once, from a fresh start, and returns the figures."""

    name: str
    run: Callable[[], Figures]


@dataclass(frozen=True, slots=True)
class Sample:
    """The figures of one run of a contestant. Round 0 is the warm-up and does not count."""

    group: str
    contestant: str
    round: int
    figures: Figures


@dataclass
class Samples:
    """All samples of a run, with queries over them."""

    all: list[Sample] = field(default_factory=list)

    def values(self, group: str, contestant: str, figure: str) -> dict[int, float]:
        """Return a figure of a contestant by round, without the warm-up."""
        return {
            sample.round: sample.figures[figure]
            for sample in self.all
            if (sample.group, sample.contestant) == (group, contestant)
            and sample.round != WARM_UP
            and figure in sample.figures
        }

    def listed(self, group: str, contestant: str, figure: str) -> list[float]:
        """Return a figure of a contestant in each round, without the warm-up."""
        return list(self.values(group, contestant, figure).values())

    def ratios(
        self, group: str, figure: str, one: str, other: str, other_figure: str | None = None
    ) -> list[float]:
        """Return one contestant's figure divided by another's, for each round."""
        return quotients(self.values(group, one, figure), self.values(group, other, other_figure or figure))

    def contestants(self, group: str) -> list[str]:
        """Return the names of a group's contestants, in the order of their first runs."""
        return list(dict.fromkeys(sample.contestant for sample in self.all if sample.group == group))

    def groups(self) -> list[str]:
        """Return the names of the measured groups, in order."""
        return list(dict.fromkeys(sample.group for sample in self.all if sample.round != WARM_UP))


@dataclass(frozen=True, slots=True)
class Bench:
    """One run of the benchmark.

    Parameters:
        engines: the running engines.
        folder: a temporary folder for logs.
        quick: whether sizes are small.
        rounds: the number of rounds that count.
        scale: the size of the full tables; 1 means five million attempts.
        say: prints a line of progress.
    """

    engines: Engines
    folder: Path
    quick: bool
    rounds: int
    scale: float
    say: Callable[[str], None]
    versions: dict[str, str] = field(default_factory=dict)
    """The versions of the packages that the contestants report."""

    @property
    def brokers(self) -> Sequence[Broker]:
        """The running brokers."""
        return list(self.engines.brokers.values())

    def size(self, full: int, quick: int) -> int:
        """Return the size for this run: `quick` in a quick run, else `full`."""
        return quick if self.quick else full

    @contextmanager
    def ours(
        self,
        broker: Broker,
        learners: int,
        settings: Mapping[str, object] | None = None,
        database_url: str | None = None,
        numbers: Mapping[str, int] | None = None,
    ) -> Iterator[Ours]:
        """Yield our system with `learners` new learners. No process of it runs yet.

        Parameters:
            broker: the broker to use.
            learners: the number of learners to add.
            settings: the settings, without the prefix.
            database_url: the database to use. The default is a fresh one.
            numbers: which processes `start_all` starts, and how many. The default is one of each of `EVERYBODY`.
        """
        database = self.engines.database
        with ExitStack() as stack:
            url = database_url or stack.enter_context(database.fresh(ours.TEMPLATE, ours.prepare))
            system = stack.enter_context(Ours(database, url, broker, self.folder, settings or {}, numbers))
            system.add_learners(learners)
            system.checkpoint()
            yield system

    def alternate(
        self, group: str, contestants: Sequence[Contestant], rounds: range, samples: Samples
    ) -> None:
        """Run every contestant once in each round (A B C, A B C, …), so that drift of the machine affects all."""
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
    """Return one figure divided by another, for each round that has both."""
    return [top[number] / bottom[number] for number in top.keys() & bottom.keys() if bottom[number]]


def spread(values: Sequence[float]) -> tuple[float, float, float]:
    """Return the median, the least and the most of the values."""
    return median(values), min(values), max(values)
