"""The latency of a command, measured from just before the call of the publisher.

*Idle*: one command at a time, 60 to 160 ms after the one before. Each round has 300 commands, or 120 with slow
services. Half of them owe effects, and only these count for the end of the last effect.

*At half of its rate*: the same processes first handle a burst, then commands at half of the burst's rate. This
rate is set, not measured.

The time of a commit is PostgreSQL's timestamp of it. PostgreSQL takes the timestamp before it flushes the commit to
disk, so the mean time of a flush in that run (0.7 to 2 ms) is added. The p99 therefore misses the extra time
of slow flushes. The tables are read only afterwards, because reading them meanwhile would take CPU from the system.

*The floor*: code written by hand sends a message, waits for it, parses its JSON, and commits with prepared
statements in one round trip. It takes the time of the commit from its own clock, right after the answer to
COMMIT. With these engines on this machine, little can be faster. *With effects*: a relay and three workers by hand
carry out the effects, too. They commit as often as ours do, each time in one round trip, and ask nothing about
other effects, circuits or pauses.

*The peer*: the time of one call, with services that cost nothing. The pauses before a call are as long as those
of our idle system, because after a tenth of a second caches are cold.

*procrastinate and DBOS*: idle, the same stream of commands, and the times of their own commits: of the transition,
and of what says that the last job or step is done.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from statistics import quantiles
from typing import Any

from benchmarks import applications, by_hand, rivals
from benchmarks.applications import DBOS, PROCRASTINATE, Alternative, application
from benchmarks.bench import Bench, Contestant, Figures
from benchmarks.engines import Broker
from benchmarks.flushes import Flushes
from benchmarks.groups.services import SERVICE_MS, services
from benchmarks.running import Process
from benchmarks.system import PATIENCE_S, WARM_LEARNERS, System
from benchmarks.workload import COMMANDS_PER_LEARNER

NAME = "latency"
PEER = rivals.PEER
PAUSE_S = (0.06, 0.16)
MOST_LEARNERS = 5_000


def floor_name(broker: str) -> str:
    """Return the contestant's name."""
    return f"floor on {broker}, idle"


def floor_effects_name(broker: str) -> str:
    """Return the contestant's name."""
    return f"floor on {broker}, idle, with effects"


def slow_name(broker: str) -> str:
    """Return the contestant's name."""
    return f"ours on {broker}, idle, services of {SERVICE_MS} ms"


def idle_name(broker: str) -> str:
    """Return the contestant's name."""
    return f"ours on {broker}, idle"


def alternative_name(alternative: Alternative) -> str:
    """Return the contestant's name."""
    return f"{alternative.title}, idle"


def half_name(broker: str) -> str:
    """Return the contestant's name."""
    return f"ours on {broker}, at half of its rate"


def contestants(bench: Bench) -> Sequence[Contestant]:
    """Return the peer and the floor when idle, and our system when idle and when busy."""
    peer = Contestant(PEER, partial(rivals.peer, bench, 10, pause_s=PAUSE_S))
    floor = [Contestant(floor_name(broker.name), partial(_floor, bench, broker)) for broker in bench.brokers]
    floor_effects = [
        Contestant(floor_effects_name(broker.name), partial(_floor_effects, bench, broker))
        for broker in bench.brokers
    ]
    idle = [
        Contestant(idle_name(broker.name), partial(_idle, bench, broker, {}, bench.size(50, 10)))
        for broker in bench.brokers
    ]
    others = [
        Contestant(alternative_name(one), partial(_alternative, bench, one, 50))
        for one in applications.installed((PROCRASTINATE, DBOS))
    ]
    slow = [Contestant(slow_name(broker.name), partial(_slow, bench, broker)) for broker in bench.brokers]
    half = [Contestant(half_name(broker.name), partial(_half, bench, broker)) for broker in bench.brokers]
    if bench.quick:
        return [*floor, *idle]
    return [*rivals.available([peer]), *floor, *floor_effects, *idle, *others, *slow, *half]


def _floor(bench: Bench, broker: Broker) -> Figures:
    learners = bench.size(30, 10)
    handled = by_hand.commits(bench, broker, learners, PAUSE_S)
    return {
        **summary("commit", [1000 * (one.committed - one.before) for one in handled]),
        "waits_ms_per_learner": sum(1000 * (one.after - one.before) for one in handled) / learners,
    }


def _floor_effects(bench: Bench, broker: Broker) -> Figures:
    return summary("effects", [1000 * time for time in by_hand.effects(bench, broker, 50, PAUSE_S)])


def _slow(bench: Bench, broker: Broker) -> Figures:
    with services(bench, SERVICE_MS) as urls:
        return _idle(bench, broker, urls, 20)


def _alternative(bench: Bench, one: Alternative, learners: int) -> Figures:
    with application(bench, one, None, WARM_LEARNERS + learners) as system:
        return _one_by_one(system)


def _idle(bench: Bench, broker: Broker, settings: Mapping[str, object], learners: int) -> Figures:
    with bench.ours(broker, WARM_LEARNERS + learners, settings) as system:
        return _one_by_one(system)


def _one_by_one(system: System) -> Figures:
    learners = system.learners[WARM_LEARNERS:]
    with _warm(system) as publisher:
        return _streamed(system, publisher, learners, {"pause_s": PAUSE_S})


@contextmanager
def _warm(system: System) -> Iterator[Process]:
    """Start the system and have it handle a few learners. Yield the publisher."""
    system.start_all()
    with system.publisher() as publisher:
        system.wait_until_ready()
        system.whole(publisher, system.learners[:WARM_LEARNERS])
        yield publisher


def _streamed(system: System, publisher: Process, learners: range, pace: Mapping[str, object]) -> Figures:
    """Publish a stream at a pace, and return how long each command took."""
    mark, flushes = system.mark(), Flushes(system.rows)
    request = {"first": learners.start, "learners": len(learners), "wave": "stream", "stamps": True, **pace}
    answer = publisher.ask(request, PATIENCE_S)
    system.wait_for(answer, mark)
    ends, flush_s = system.ends(mark), flushes.mean_s()
    stamps = answer["stamps"]
    return {
        **summary("commit", _committed(stamps, ends, flush_s)),
        **summary("effects", _ended(stamps, ends, flush_s)),
        **summary("publish", [1000 * (after - before) for _, before, after in stamps]),
        "waits_ms_per_learner": 1000 * answer["waited"] / len(learners),
        "flush_ms": 1000 * flush_s,
    }


def _half(bench: Bench, broker: Broker) -> Figures:
    burst, paced_s = 40, 10
    with (
        bench.ours(broker, WARM_LEARNERS + burst + MOST_LEARNERS) as system,
        _warm(system) as publisher,
    ):
        done = system.whole(publisher, system.learners[WARM_LEARNERS:][:burst])
        per_s = done["commands"] / done["seconds"] / 2
        number = min(MOST_LEARNERS, int(per_s * paced_s / COMMANDS_PER_LEARNER))
        learners = system.learners[WARM_LEARNERS + burst :][:number]
        system.checkpoint()
        meter = system.meter()
        before = meter.read()
        figures = _streamed(system, publisher, learners, {"per_s": per_s})
        usage = meter.read().since(before)
    return {
        **figures,
        **usage.figures("command", number * COMMANDS_PER_LEARNER),
        "commands_per_s": per_s,
    }


def _committed(
    stamps: Sequence[Any], ends: Mapping[str, tuple[float, float | None]], flush_s: float
) -> list[float]:
    return [1000 * (ends[command_id][0] + flush_s - before) for command_id, before, _ in stamps]


def _ended(
    stamps: Sequence[Any], ends: Mapping[str, tuple[float, float | None]], flush_s: float
) -> list[float]:
    pairs = [(before, ends[command_id][1]) for command_id, before, _ in stamps]
    return [1000 * (end + flush_s - before) for before, end in pairs if end is not None]


def summary(what: str, milliseconds: Sequence[float]) -> Figures:
    """Return the percentiles of some times, as figures whose names begin with `what`."""
    cuts = quantiles(milliseconds, n=100, method="inclusive")
    return {f"{what}_p50_ms": cuts[49], f"{what}_p95_ms": cuts[94], f"{what}_p99_ms": cuts[98]}
