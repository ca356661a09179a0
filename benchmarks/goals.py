"""The performance goals. Each compares two contestants in every round and checks the median of the ratios."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Literal

from benchmarks.bench import Samples, quotients
from benchmarks.groups import (
    commands,
    events,
    flat,
    latency,
    memory,
    scaling,
    services,
    shards,
    tables,
    whole,
)

BROKERS = {"rabbitmq": "RabbitMQ", "valkey": "Valkey"}
CPU_OF_PEER = {"rabbitmq": 0.1, "valkey": 0.2}
UPDATE_OF_PEER = 0.25
RATE_OF_FLOOR = 0.7
CPU_OF_A_FEED = 1.25
"""What a feed may cost: a quarter of a transition without one."""
BUSY = 0.85
"""The fraction of the machine's CPUs above which the CPUs are the limit."""


@dataclass(frozen=True, slots=True)
class Check:
    """One ratio with its limit.

    Parameters:
        goal: the number of the goal in the issue that set it, or 14 for what events cost (issue 14).
        title: the ratio in words.
        values: the ratio of each round. It is empty when the ratio was not measured.
        side: whether the median must be at most or at least `limit`.
        limit: the limit.
    """

    goal: int
    title: str
    values: Sequence[float]
    side: Literal["at most", "at least"]
    limit: float

    @property
    def ratio(self) -> float:
        """The median of the rounds."""
        return median(self.values)

    @property
    def is_met(self) -> bool:
        """Return whether the median is on the right side of the limit."""
        return self.ratio <= self.limit if self.side == "at most" else self.ratio >= self.limit


def checks(samples: Samples) -> list[Check]:
    """Return the checks of the goals for which both contestants were measured."""
    return [check for check in _all(samples) if check.values]


def beside(samples: Samples) -> list[Check]:
    """Return the goals' ratios for other contestants: more processes, plain Celery, and code written by hand."""
    return [check for check in _others(samples) if check.values]


def _others(samples: Samples) -> Iterator[Check]:
    for broker, name in BROKERS.items():
        other = whole.celery_name(broker)
        cpu = samples.ratios(whole.NAME, "cpu_ms_per_transition", other, whole.PEER)
        yield Check(
            1, f"CPU of a transition, plain Celery on {name} / peer", cpu, "at most", CPU_OF_PEER[broker]
        )
    for broker, name in BROKERS.items():
        two = samples.values(shards.NAME, shards.ours_name(broker, 2), "commands_per_s")
        for how, floor in commands.FLOORS.items():
            one = samples.values(commands.NAME, commands.floor_name(100, how), "commands_per_s")
            title = f"commands/s, {name}, four shards in two processes / {floor} on one connection"
            yield Check(2, title, quotients(two, one), "at least", RATE_OF_FLOOR)
    for broker, name in BROKERS.items():
        p99 = samples.ratios(
            latency.NAME, "commit_p99_ms", latency.floor_name(broker), latency.PEER, "update_ms"
        )
        yield Check(
            5, f"idle p99 sent → committed, by hand, {name} / peer's update", p99, "at most", UPDATE_OF_PEER
        )


def _all(samples: Samples) -> Iterator[Check]:
    for broker, name in BROKERS.items():
        ours = whole.ours_name(broker)
        cpu = samples.ratios(whole.NAME, "cpu_ms_per_transition", ours, whole.PEER)
        yield Check(1, f"CPU of a transition, {name} / peer", cpu, "at most", CPU_OF_PEER[broker])
    for broker, name in BROKERS.items():
        for how, floor in commands.FLOORS.items():
            rate = samples.ratios(
                commands.NAME,
                "commands_per_s",
                commands.ours_name(broker, 100),
                commands.floor_name(100, how),
            )
            yield Check(2, f"commands/s at batch 100, {name} / {floor}", rate, "at least", RATE_OF_FLOOR)
    for broker, name in BROKERS.items():
        waits = samples.ratios(
            services.NAME, "waits_ms_per_learner", services.ours_name(broker), services.PEER
        )
        yield Check(3, f"what the learner waits for, {name} / peer", waits, "at most", 1 / 50)
    for broker, name in BROKERS.items():
        one_feed = samples.ratios(
            events.NAME, "cpu_ms_per_transition", events.feed_name(broker), events.silent_name(broker)
        )
        yield Check(
            14, f"CPU of a transition, one feed / nobody listens, {name}", one_feed, "at most", CPU_OF_A_FEED
        )
    yield from _flatness(samples)
    for broker, name in BROKERS.items():
        p99 = samples.ratios(
            latency.NAME, "commit_p99_ms", latency.idle_name(broker), latency.PEER, "update_ms"
        )
        yield Check(
            5, f"idle p99 published → committed, {name} / peer's update", p99, "at most", UPDATE_OF_PEER
        )
    yield from _scaling(samples)


def _flatness(samples: Samples) -> Iterator[Check]:
    for broker, name in BROKERS.items():
        queued = samples.ratios(
            flat.NAME,
            "commands_per_s",
            *(flat.ours_name(broker, number) for number in (flat.LONG, flat.SHORT)),
        )
        yield Check(4, f"commands/s, 100,000 / 1,000 queued, {name}", queued, "at least", 0.9)
        for what, figure in (("commands", "commands_per_s"), ("whole", "transitions_per_s")):
            full = samples.ratios(
                tables.NAME, figure, tables.full_name(what, broker), tables.empty_name(what, broker)
            )
            yield Check(4, f"rate of {what}, full / empty tables, {name}", full, "at least", 0.85)
        growth = samples.values(memory.NAME, memory.ours_name(broker), "growth")
        title = f"memory of that process of ours that grows most, 200,000 / 10,000 commands, {name}"
        yield Check(4, title, [1 + value for value in growth.values()], "at most", 1.05)


def _scaling(samples: Samples) -> Iterator[Check]:
    for broker, name in BROKERS.items():
        two = samples.ratios(
            scaling.NAME, "transitions_per_s", *(scaling.ours_name(broker, number) for number in (2, 1))
        )
        yield Check(6, f"rate of two / one of each worker, slow services, {name}", two, "at least", 1.7)
    for broker, name in BROKERS.items():
        most = shards.ours_name(broker, shards.PROCESSES[-1])
        busy = samples.values(shards.NAME, most, "cpus.machine")
        there = samples.values(shards.NAME, most, "cpus")
        title = f"share of the machine's CPUs in use with four shards in four processes, {name}"
        yield Check(6, title, quotients(busy, there), "at least", BUSY)
