"""The whole system: from publishing until every effect has ended, with services that cost nothing.

The clock runs from before the first command is published until no effect is owed. The second wave of commands
follows after all effects of the first (`benchmarks.workload`). The peer and the alternative do the same work.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import partial

from benchmarks import rivals
from benchmarks.bench import Bench, Contestant, Figures
from benchmarks.engines import Broker
from benchmarks.ours import EVERYBODY, SMALL_SITE, WARM_LEARNERS

NAME = "whole"
PEER = rivals.PEER


def ours_name(broker: str, processes: int = 1) -> str:
    """Return the contestant's name."""
    return f"ours on {broker}, {processes} of each"


def small_name(broker: str) -> str:
    """Return the contestant's name."""
    return f"ours on {broker}, a small site"


def alternative_name(broker: str) -> str:
    """Return the contestant's name."""
    return f"alternative on {broker}"


def contestants(bench: Bench) -> Sequence[Contestant]:
    """Return the peer, the alternative and our system. The peer has fewer learners, because it takes longer."""
    peer = [Contestant(PEER, partial(rivals.peer, bench, bench.size(15, 5)))]
    alternatives = [
        Contestant(
            alternative_name(broker.name), partial(rivals.alternative, bench, broker, bench.size(100, 30))
        )
        for broker in bench.brokers
    ]
    ours = [
        Contestant(
            ours_name(broker.name, processes),
            partial(measure, bench, broker, dict.fromkeys(EVERYBODY, processes)),
        )
        for processes in ((1,) if bench.quick else (1, 2))
        for broker in bench.brokers
    ]
    small = [
        Contestant(small_name(broker.name), partial(measure, bench, broker, {}, lines=SMALL_SITE))
        for broker in bench.brokers
    ]
    return [*rivals.available(peer), *([] if bench.quick else [*alternatives, *small]), *ours]


def measure(
    bench: Bench,
    broker: Broker,
    numbers: Mapping[str, int],
    settings: Mapping[str, object] | None = None,
    learners: int | None = None,
    database_url: str | None = None,
    lines: Iterable[str] = EVERYBODY,
) -> Figures:
    """Measure our whole system.

    Parameters:
        bench: the run.
        broker: the broker to use.
        numbers: the number of processes by name. The default of each is one.
        settings: the settings, without the prefix.
        learners: the number of learners.
        database_url: the database to use. The default is a fresh one.
        lines: what is started, of the Procfile or of a small site.
    """
    learners = learners or bench.size(150, 80)
    all_settings = {"COMMAND_SHARDS": numbers.get("commands", 1), **(settings or {})}
    with bench.ours(broker, WARM_LEARNERS + learners, all_settings, database_url) as system:
        for name in lines:
            system.start(name, numbers.get(name, 1))
        with system.publisher() as publisher:
            system.wait_until_ready()
            system.whole(publisher, system.learners[:WARM_LEARNERS])
            system.checkpoint()
            meter = system.meter()
            before = meter.read()
            done = system.whole(publisher, system.learners[WARM_LEARNERS:])
            usage, memory = meter.read().since(before), meter.memory()
    return {
        **usage.figures("transition", done["transitions"]),
        **memory,
        "seconds": done["seconds"],
        "transitions_per_s": done["transitions"] / done["seconds"],
        "waits_ms_per_learner": 1000 * done["publish_s"] / learners,
    }
