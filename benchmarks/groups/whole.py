"""The whole system: from publishing until every effect has ended, with services that cost nothing.

The clock runs from before the first command is published until no effect is owed. The second wave of commands
follows after all effects of the first (`benchmarks.workload`). The others do the same work, and the result of each
is compared: the history of each attempt, the credits and the mails, in order (of the peer: their numbers).
"""

from collections.abc import Mapping, Sequence
from functools import partial

from benchmarks import applications, rivals
from benchmarks.applications import CELERY, DBOS, PROCRASTINATE, Alternative, application
from benchmarks.bench import Bench, Contestant, Figures
from benchmarks.engines import Broker
from benchmarks.ours import EVERYBODY, SMALL_SITE
from benchmarks.system import WARM_LEARNERS, System

NAME = "whole"
PEER = rivals.PEER


def ours_name(broker: str, processes: int = 1) -> str:
    """Return the contestant's name."""
    return f"ours on {broker}, {processes} of each"


def small_name(broker: str) -> str:
    """Return the contestant's name."""
    return f"ours on {broker}, a small site"


def celery_name(broker: str) -> str:
    """Return the contestant's name."""
    return f"{CELERY.title} on {broker}"


def contestants(bench: Bench) -> Sequence[Contestant]:
    """Return the others and our system. The peer and DBOS have fewer learners, because they take longer."""
    peer = [Contestant(PEER, partial(rivals.peer, bench, bench.size(15, 5)))]
    celery = [
        Contestant(celery_name(broker.name), partial(_alternative, bench, CELERY, broker, 100))
        for broker in bench.brokers
    ]
    learners = {PROCRASTINATE: bench.size(100, 40), DBOS: bench.size(50, 20)}
    others = [
        Contestant(one.title, partial(_alternative, bench, one, None, learners[one]))
        for one in applications.installed((PROCRASTINATE,) if bench.quick else (PROCRASTINATE, DBOS))
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
        Contestant(small_name(broker.name), partial(measure, bench, broker, dict.fromkeys(SMALL_SITE, 1)))
        for broker in bench.brokers
    ]
    return [*rivals.available(peer), *([] if bench.quick else [*celery, *small]), *others, *ours]


def measure(
    bench: Bench,
    broker: Broker,
    numbers: Mapping[str, int],
    settings: Mapping[str, object] | None = None,
    learners: int | None = None,
    database_url: str | None = None,
) -> Figures:
    """Measure our whole system.

    Parameters:
        bench: the run.
        broker: the broker to use.
        numbers: the number of processes by name. Empty stands for one of each of `EVERYBODY`.
        settings: the settings, without the prefix.
        learners: the number of learners.
        database_url: the database to use. The default is a fresh one.
    """
    learners = learners or bench.size(150, 80)
    all_settings = {"COMMAND_SHARDS": numbers.get("commands", 1), **(settings or {})}
    with bench.ours(broker, WARM_LEARNERS + learners, all_settings, database_url, numbers) as system:
        return _measured(system)


def _alternative(bench: Bench, one: Alternative, broker: Broker | None, learners: int) -> Figures:
    with application(bench, one, broker, WARM_LEARNERS + learners) as system:
        return _measured(system)


def _measured(system: System) -> Figures:
    system.start_all()
    learners = system.learners[WARM_LEARNERS:]
    with system.publisher() as publisher:
        system.wait_until_ready()
        system.whole(publisher, system.learners[:WARM_LEARNERS])
        system.checkpoint()
        meter = system.meter()
        before = meter.read()
        done = system.whole(publisher, learners)
        usage, memory = meter.read().since(before), meter.memory()
    return {
        **usage.figures("transition", done["transitions"]),
        **memory,
        "seconds": done["seconds"],
        "transitions_per_s": done["transitions"] / done["seconds"],
        "waits_ms_per_learner": 1000 * done["publish_s"] / len(learners),
    }
