"""The latency of a command, measured from just before the call of the publisher.

*Idle*: one command at a time, 60 to 160 ms after the one before. Each round has 300 commands, or 120 with slow
services. Half of them owe effects, and only these count for the end of the last effect.

*At half of its rate*: the same processes first handle a burst, then commands at half of the burst's rate. This
rate is set, not measured.

The time of a commit is PostgreSQL's timestamp of it. PostgreSQL takes the timestamp before it flushes the commit to
disk, so the mean time of a flush (about half a millisecond) is added. The p99 therefore misses the extra time
of slow flushes. The tables are read only afterwards, because reading them meanwhile would take CPU from the system.

*The floor*: code written by hand sends a message, waits for it, parses its JSON, and commits with prepared
statements in one round trip. It takes the time of the commit from its own clock, right after the answer to
COMMIT. With these engines on this machine, little can be faster.

*The peer*: the time of one call, with services that cost nothing. The pauses before a call are as long as those
of our idle system, because after a tenth of a second caches are cold.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from statistics import quantiles
from typing import Any

from benchmarks import rivals
from benchmarks.bench import Bench, Contestant, Figures
from benchmarks.engines import Broker
from benchmarks.groups.services import SERVICE_MS, services
from benchmarks.ours import EVERYBODY, PATIENCE_S, WARM_LEARNERS, Ours
from benchmarks.running import Process
from benchmarks.workload import COMMANDS_PER_LEARNER

NAME = "latency"
PEER = rivals.PEER
PAUSE_S = (0.06, 0.16)
MOST_LEARNERS = 5_000

_FLUSHES = "SELECT sum(fsyncs), sum(fsync_time) FROM pg_stat_io WHERE object = 'wal'"
_ENDS = """
WITH last AS (
    SELECT source, command_id, max(pg_xact_commit_timestamp(xmin)) AS at FROM effects GROUP BY 1, 2
)
SELECT command_id, extract(epoch FROM pg_xact_commit_timestamp(outcomes.xmin))::float8,
    extract(epoch FROM last.at)::float8
FROM outcomes JOIN inbox ON inbox.id = inbox_id LEFT JOIN last USING (source, command_id) WHERE inbox_id > %s
"""


def floor_name(broker: str) -> str:
    """Return the contestant's name."""
    return f"floor on {broker}, idle"


def slow_name(broker: str) -> str:
    """Return the contestant's name."""
    return f"ours on {broker}, idle, services of {SERVICE_MS} ms"


def idle_name(broker: str) -> str:
    """Return the contestant's name."""
    return f"ours on {broker}, idle"


def half_name(broker: str) -> str:
    """Return the contestant's name."""
    return f"ours on {broker}, at half of its rate"


def contestants(bench: Bench) -> Sequence[Contestant]:
    """Return the peer and the floor when idle, and our system when idle and when busy."""
    peer = Contestant(PEER, partial(rivals.peer, bench, bench.size(10, 4), pause_s=PAUSE_S))
    floor = [Contestant(floor_name(broker.name), partial(_floor, bench, broker)) for broker in bench.brokers]
    idle = [
        Contestant(idle_name(broker.name), partial(_idle, bench, broker, {}, bench.size(50, 10)))
        for broker in bench.brokers
    ]
    slow = [Contestant(slow_name(broker.name), partial(_slow, bench, broker)) for broker in bench.brokers]
    half = [Contestant(half_name(broker.name), partial(_half, bench, broker)) for broker in bench.brokers]
    return [*rivals.available([peer]), *idle, *([] if bench.quick else [*floor, *slow, *half])]


def _floor(bench: Bench, broker: Broker) -> Figures:
    learners = 30
    sent = rivals.floor_latency(bench, broker, learners, PAUSE_S)
    return {
        **summary("commit", [1000 * (end - before) for before, _, end in sent]),
        "waits_ms_per_learner": sum(1000 * (after - before) for before, after, _ in sent) / learners,
    }


def _slow(bench: Bench, broker: Broker) -> Figures:
    with services(bench, SERVICE_MS) as urls:
        return _idle(bench, broker, urls, 20)


@contextmanager
def _running(
    bench: Bench, broker: Broker, learners: int, settings: Mapping[str, object]
) -> Iterator[tuple[Ours, Process]]:
    with bench.ours(broker, WARM_LEARNERS + learners, settings) as system:
        for name in EVERYBODY:
            system.start(name)
        with system.publisher() as publisher:
            system.wait_until_ready()
            system.whole(publisher, system.learners[:WARM_LEARNERS])
            yield system, publisher


def _idle(bench: Bench, broker: Broker, settings: Mapping[str, object], learners: int) -> Figures:
    with _running(bench, broker, learners, settings) as (system, publisher):
        base, flushes = system.last_inbox_id(), _flushes(system)
        answer = publisher.ask(
            {
                "first": WARM_LEARNERS,
                "learners": learners,
                "wave": "stream",
                "pause_s": PAUSE_S,
                "stamps": True,
            },
            PATIENCE_S,
        )
        system.wait_for(answer["commands"], base)
        ends = _ends(system, base)
        flush_s = _flush_s(system, flushes)
    stamps = answer["stamps"]
    return {
        **summary("commit", _committed(stamps, ends, flush_s)),
        **summary("effects", _ended(stamps, ends, flush_s)),
        **summary("publish", [1000 * (after - before) for _, before, after in stamps]),
        "waits_ms_per_learner": 1000 * answer["waited"] / learners,
        "flush_ms": 1000 * flush_s,
    }


def _half(bench: Bench, broker: Broker) -> Figures:
    burst, paced_s = 40, 10
    with _running(bench, broker, burst + MOST_LEARNERS, {}) as (system, publisher):
        done = system.whole(publisher, system.learners[WARM_LEARNERS:][:burst])
        per_s = done["commands"] / done["seconds"] / 2
        learners = min(MOST_LEARNERS, int(per_s * paced_s / COMMANDS_PER_LEARNER))
        system.checkpoint()
        base, flushes, meter = system.last_inbox_id(), _flushes(system), system.meter()
        before = meter.read()
        answer = publisher.ask(
            {
                "first": WARM_LEARNERS + burst,
                "learners": learners,
                "wave": "stream",
                "per_s": per_s,
                "stamps": True,
            },
            PATIENCE_S,
        )
        system.wait_for(answer["commands"], base)
        usage = meter.read().since(before)
        ends = _ends(system, base)
        flush_s = _flush_s(system, flushes)
    stamps = answer["stamps"]
    return {
        **summary("commit", _committed(stamps, ends, flush_s)),
        **summary("effects", _ended(stamps, ends, flush_s)),
        **summary("publish", [1000 * (after - before) for _, before, after in stamps]),
        **usage.figures("command", len(stamps)),
        "commands_per_s": per_s,
        "flush_ms": 1000 * flush_s,
    }


def _ends(system: Ours, base: int) -> Mapping[str, tuple[float, float | None]]:
    """Return by command id the commit times of its outcome and of its last effect (None if it owes none)."""
    return {command_id: (outcome, effects) for command_id, outcome, effects in system.rows(_ENDS, base)}


def _committed(
    stamps: Sequence[Any], ends: Mapping[str, tuple[float, float | None]], flush_s: float
) -> list[float]:
    return [1000 * (ends[command_id][0] + flush_s - before) for command_id, before, _ in stamps]


def _ended(
    stamps: Sequence[Any], ends: Mapping[str, tuple[float, float | None]], flush_s: float
) -> list[float]:
    pairs = [(before, ends[command_id][1]) for command_id, before, _ in stamps]
    return [1000 * (end + flush_s - before) for before, end in pairs if end is not None]


def _flushes(system: Ours) -> tuple[float, float]:
    [[number, milliseconds]] = system.rows(_FLUSHES)
    return float(number), float(milliseconds)


def _flush_s(system: Ours, before: tuple[float, float]) -> float:
    number, milliseconds = _flushes(system)
    return (milliseconds - before[1]) / 1000 / max(1.0, number - before[0])


def summary(what: str, milliseconds: Sequence[float]) -> Figures:
    """Return the percentiles of some times, as figures whose names begin with `what`."""
    cuts = quantiles(milliseconds, n=100, method="inclusive")
    return {f"{what}_p50_ms": cuts[49], f"{what}_p95_ms": cuts[94], f"{what}_p99_ms": cuts[98]}
