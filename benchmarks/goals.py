"""The performance goals. Each is a figure or a ratio of every round, and the median of the rounds is checked."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Literal

from benchmarks.applications import DBOS, PROCRASTINATE
from benchmarks.bench import Samples, quotients
from benchmarks.groups import (
    commands,
    effects,
    events,
    flat,
    latency,
    memory,
    operators,
    scaling,
    services,
    shards,
    tables,
    whole,
)

BROKERS = {"rabbitmq": "RabbitMQ", "valkey": "Valkey"}
OTHER = "–"
"""Stands for the number of the goal where an earlier issue has set the limit, and issue 16 says nothing of it."""

EFFECTS_P95_MS, EFFECTS_P99_MS, SLOW_EFFECTS_P95_MS = 15, 20, 80
CPU_OF_PEER = {"rabbitmq": 0.19, "valkey": 0.15}
CPU_OF_CELERY = {"rabbitmq": 0.60, "valkey": 0.36}
CPU_OF_PROCRASTINATE = {"rabbitmq": 0.55, "valkey": 0.45}
COMMIT_OF_FLOOR = 1.4
RATE_OF_FLOOR, RATE_OF_SHARDS = 0.6, 1.1
FLOOR = "values"
"""The way to write by hand that the rates are compared with: `execute_values`."""
MEMORY_MB = 300
HALF_COMMIT_P99_MS, HALF_EFFECTS_P99_MS = 25, 150
CPU_OF_A_FEED = 1.08
EVENTS_PER_S = 5_000
RATE_OF_MANY, RATE_UNDER_A_SNAPSHOT, RATE_OF_FULL = 0.9, 0.85, 0.9
LOOK_MS = 300
BUSY = 0.85
"""The fraction of the machine's CPUs above which the CPUs are the limit."""


@dataclass(frozen=True, slots=True)
class Check:
    """One figure or ratio with its limit.

    Parameters:
        goal: the number of the goal in issue 16, or `OTHER`.
        title: what is measured, in words.
        values: the value of each round. It is empty when nothing was measured.
        side: whether the median must be at most or at least `limit`.
        limit: the limit.
    """

    goal: str
    title: str
    values: Sequence[float]
    side: Literal["at most", "at least"]
    limit: float

    @property
    def value(self) -> float:
        """The median of the rounds."""
        return median(self.values)

    @property
    def is_met(self) -> bool:
        """Return whether the median is on the right side of the limit."""
        return self.value <= self.limit if self.side == "at most" else self.value >= self.limit


def checks(samples: Samples) -> list[Check]:
    """Return the checks of the goals for which everything was measured."""
    return [check for check in _all(samples) if check.values]


def beside(samples: Samples) -> list[Check]:
    """Return what the goals would say of others: code written by hand, plain Celery, procrastinate and DBOS."""
    return [check for check in _others(samples) if check.values]


def _all(samples: Samples) -> Iterator[Check]:
    for part in (_idle, _cpu, _commit, _rates, _busy, _events, _flat):
        for broker, name in BROKERS.items():
            yield from part(samples, broker, name)
    yield from _looks(samples)
    for broker, name in BROKERS.items():
        yield from _earlier(samples, broker, name)


def _idle(samples: Samples, broker: str, name: str) -> Iterator[Check]:
    p95, p99 = (
        samples.listed(latency.NAME, latency.idle_name(broker), f"effects_{percentile}_ms")
        for percentile in ("p95", "p99")
    )
    slow = samples.listed(latency.NAME, latency.slow_name(broker), "effects_p95_ms")
    yield Check("1", f"idle p95 published → effects done, {name}, ms", p95, "at most", EFFECTS_P95_MS)
    yield Check("1", f"idle p99 published → effects done, {name}, ms", p99, "at most", EFFECTS_P99_MS)
    title = f"the same p95, services of {services.SERVICE_MS} ms, {name}, ms"
    yield Check("1", title, slow, "at most", SLOW_EFFECTS_P95_MS)


def _cpu(samples: Samples, broker: str, name: str) -> Iterator[Check]:
    rivals: Mapping[str, tuple[str, Mapping[str, float]]] = {
        "peer": (whole.PEER, CPU_OF_PEER),
        "plain Celery": (whole.celery_name(broker), CPU_OF_CELERY),
        "procrastinate": (PROCRASTINATE.title, CPU_OF_PROCRASTINATE),
    }
    for rival, (contestant, limits) in rivals.items():
        cpu = samples.ratios(whole.NAME, "cpu_ms_per_transition", whole.ours_name(broker), contestant)
        yield Check("2", f"CPU of a transition, {name} / {rival}", cpu, "at most", limits[broker])


def _commit(samples: Samples, broker: str, name: str) -> Iterator[Check]:
    by_hand = samples.ratios(
        latency.NAME, "commit_p99_ms", latency.idle_name(broker), latency.floor_name(broker)
    )
    title = f"idle p99 published → committed, {name} / by hand"
    yield Check("3", title, by_hand, "at most", COMMIT_OF_FLOOR)


def _rates(samples: Samples, broker: str, name: str) -> Iterator[Check]:
    floor = samples.values(commands.NAME, commands.floor_name(100, FLOOR), "commands_per_s")
    one = samples.values(commands.NAME, commands.ours_name(broker, 100), "commands_per_s")
    two = samples.values(shards.NAME, shards.ours_name(broker, 2), "commands_per_s")
    title = f"commands/s at batch 100, {name} / execute_values"
    yield Check("4", title, quotients(one, floor), "at least", RATE_OF_FLOOR)
    title = f"commands/s, four shards in two processes, {name} / execute_values on one connection"
    yield Check("4", title, quotients(two, floor), "at least", RATE_OF_SHARDS)
    mine = _memory(samples, whole.ours_name(broker))
    yield Check("4", f"memory of one process of each and the engines, {name}, MB", mine, "at most", MEMORY_MB)
    small = _memory(samples, whole.small_name(broker))
    yield Check("4", f"memory of a small site and the engines, {name}, MB", small, "at most", MEMORY_MB)


def _memory(samples: Samples, contestant: str) -> list[float]:
    """Return the memory without the publisher, which is part of the LMS."""
    everything = samples.values(whole.NAME, contestant, "pss_mb")
    publisher = samples.values(whole.NAME, contestant, "pss_mb.publisher")
    return [everything[number] - publisher[number] for number in everything.keys() & publisher.keys()]


def _busy(samples: Samples, broker: str, name: str) -> Iterator[Check]:
    commit, done = (
        samples.listed(latency.NAME, latency.half_name(broker), f"{what}_p99_ms")
        for what in ("commit", "effects")
    )
    title = f"p99 published → committed at half of the rate, {name}, ms"
    yield Check("5", title, commit, "at most", HALF_COMMIT_P99_MS)
    title = f"p99 published → effects done at half of the rate, {name}, ms"
    yield Check("5", title, done, "at most", HALF_EFFECTS_P99_MS)


def _events(samples: Samples, broker: str, name: str) -> Iterator[Check]:
    feed = samples.ratios(
        events.NAME, "cpu_ms_per_transition", events.feed_name(broker), events.silent_name(broker)
    )
    calls = samples.ratios(
        effects.NAME,
        "cpu_ms_per_effect",
        *(effects.calls_name(broker, what) for what in ("deliveries", "credits")),
    )
    rate = samples.listed(events.NAME, events.relay_name(broker), "events_per_s")
    title = f"CPU of a transition, one feed / nobody listens, {name}"
    yield Check("6", title, feed, "at most", CPU_OF_A_FEED)
    yield Check("6", f"CPU of a webhook delivery / a credit, {name}", calls, "at most", 1)
    yield Check("6", f"events/s through the relay, {name}", rate, "at least", EVENTS_PER_S)


def _flat(samples: Samples, broker: str, name: str) -> Iterator[Check]:
    due = samples.ratios(
        effects.NAME,
        "effects_per_s",
        *(effects.due_name(broker, number) for number in (effects.LONG, effects.SHORT)),
    )
    held = samples.ratios(
        effects.NAME,
        "effects_per_s",
        *(effects.held_name(broker, held=held) for held in (True, False)),
    )
    full = samples.ratios(
        tables.NAME,
        "transitions_per_s",
        tables.full_name("whole", broker),
        tables.empty_name("whole", broker),
    )
    title = f"effects/s, {effects.LONG:,} / {effects.SHORT:,} due, {name}"
    yield Check("7", title, due, "at least", RATE_OF_MANY)
    title = f"effects/s, a foreign snapshot / none, {name}"
    yield Check("7", title, held, "at least", RATE_UNDER_A_SNAPSHOT)
    title = f"rate of whole, full tables and two million effects more / empty tables, {name}"
    yield Check("7", title, full, "at least", RATE_OF_FULL)


def _looks(samples: Samples) -> Iterator[Check]:
    """Yield the check of goal 8: of each round the slowest page, document and scrape."""
    slowest: dict[int, float] = {}
    for contestant in samples.contestants(operators.NAME):
        if not operators.is_program(contestant):
            for number, p95 in samples.values(operators.NAME, contestant, "read_p95_ms").items():
                slowest[number] = max(p95, slowest.get(number, 0))
    title = "p95 of the slowest of status, /metrics and the console's pages, ms"
    yield Check("8", title, list(slowest.values()), "at most", LOOK_MS)


def _earlier(samples: Samples, broker: str, name: str) -> Iterator[Check]:
    """Yield the checks of earlier issues that no goal of issue 16 replaces."""
    waits = samples.ratios(services.NAME, "waits_ms_per_learner", services.ours_name(broker), services.PEER)
    yield Check(OTHER, f"what the learner waits for, {name} / peer", waits, "at most", 1 / 50)
    queued = samples.ratios(
        flat.NAME,
        "commands_per_s",
        *(flat.ours_name(broker, number) for number in (flat.LONG, flat.SHORT)),
    )
    yield Check(OTHER, f"commands/s, 100,000 / 1,000 queued, {name}", queued, "at least", 0.9)
    full = samples.ratios(
        tables.NAME,
        "commands_per_s",
        tables.full_name("commands", broker),
        tables.empty_name("commands", broker),
    )
    yield Check(OTHER, f"rate of commands, full / empty tables, {name}", full, "at least", 0.85)
    growth = samples.listed(memory.NAME, memory.ours_name(broker), "growth")
    title = f"memory of that process of ours that grows most, 200,000 / 10,000 commands, {name}"
    yield Check(OTHER, title, [1 + value for value in growth], "at most", 1.05)
    two = samples.ratios(
        scaling.NAME, "transitions_per_s", *(scaling.ours_name(broker, number) for number in (2, 1))
    )
    yield Check(OTHER, f"rate of two / one of each worker, slow services, {name}", two, "at least", 1.7)
    most = shards.ours_name(broker, shards.PROCESSES[-1])
    cpus = quotients(
        samples.values(shards.NAME, most, "cpus.machine"), samples.values(shards.NAME, most, "cpus")
    )
    title = f"share of the machine's CPUs in use with four shards in four processes, {name}"
    yield Check(OTHER, title, cpus, "at least", BUSY)


def _others(samples: Samples) -> Iterator[Check]:
    others = (PROCRASTINATE, DBOS)
    idle = {f"by hand, {name}": latency.floor_effects_name(broker) for broker, name in BROKERS.items()}
    idle |= {other.title: latency.alternative_name(other) for other in others}
    for who, contestant in idle.items():
        for percentile, limit in (("p95", EFFECTS_P95_MS), ("p99", EFFECTS_P99_MS)):
            done = samples.listed(latency.NAME, contestant, f"effects_{percentile}_ms")
            title = f"idle {percentile} published → effects done, {who}, ms"
            yield Check("1", title, done, "at most", limit)
    contestants = [*map(whole.celery_name, BROKERS), *(other.title for other in others)]
    for contestant in contestants:
        cpu = samples.ratios(whole.NAME, "cpu_ms_per_transition", contestant, whole.PEER)
        yield Check(
            "2", f"CPU of a transition, {contestant} / peer", cpu, "at most", min(CPU_OF_PEER.values())
        )
    for contestant in contestants:
        title = f"memory of the worker and the engines, {contestant}, MB"
        yield Check("4", title, _memory(samples, contestant), "at most", MEMORY_MB)
