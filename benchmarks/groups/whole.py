"""The whole: published → every effect ended, with services that cost nothing.

The clock runs from before the first command is published until no effect is owed. The first wave of commands and
its effects, then the second, as `benchmarks.workload` says. The peer and the alternative do the same work.
"""

from collections.abc import Mapping, Sequence
from functools import partial

from benchmarks import rivals
from benchmarks.bench import Bench, Contestant, Figures
from benchmarks.engines import Broker
from benchmarks.ours import EVERYBODY, WARM_LEARNERS

NAME = "whole"
PEER = rivals.PEER


def ours_name(broker: str, processes: int = 1) -> str:
    """Of the contestant."""
    return f"ours on {broker}, {processes} of each"


def alternative_name(broker: str) -> str:
    """Of the contestant."""
    return f"alternative on {broker}"


def contestants(bench: Bench) -> Sequence[Contestant]:
    """The peer, the alternative and ours; the peer does fewer learners, because it takes longer."""
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
    return [*rivals.available(peer), *([] if bench.quick else alternatives), *ours]


def measure(
    bench: Bench,
    broker: Broker,
    numbers: Mapping[str, int],
    settings: Mapping[str, object] | None = None,
    learners: int | None = None,
    database_url: str | None = None,
) -> Figures:
    """All of ours.

    Parameters:
        numbers: how many processes of each name; one where it says nothing.
        database_url: a database to do it in, instead of a fresh one.
    """
    learners = learners or bench.size(150, 80)
    all_settings = {"COMMAND_SHARDS": numbers.get("commands", 1), **(settings or {})}
    with bench.ours(broker, WARM_LEARNERS + learners, all_settings, database_url) as system:
        for name in EVERYBODY:
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
