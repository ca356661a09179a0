"""The schedule of faults, computed from the seed alone."""

import random
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

SPACING_S = 1.6
"""Between the beginnings of two faults, on average."""
ALONE_S = 20.0
"""The same where only a cluster is struck, so that one can see what each fault does."""
CALM_START_S = 1.0

Cluster = Literal["rabbitmq", "postgresql", "sentinel", "machines", "partitions"]
"""What may be several: one of the engines, the machines on which our processes run, or the parts of the tables."""

PROCESSES = {"commands": 2, "relay": 2, "effects": 2, "mail": 2, "webhooks": 2}
"""How many of each run."""


class Kind(NamedTuple):
    """A kind of fault; it lasts a random time between the two, in seconds."""

    target: str
    what: str
    shortest_s: float
    longest_s: float


KINDS = (
    # Leases are 1 s (a shard's) and 4 s (an effect's): pauses are shorter, and longer.
    Kind("commands", "kill", 0, 2),
    Kind("commands", "kill", 0, 2),
    Kind("commands", "pause", 0.1, 0.8),
    Kind("commands", "pause", 1.5, 5),
    Kind("relay", "kill", 0, 2),
    Kind("relay", "pause", 0.5, 5),
    Kind("effects", "kill", 0, 2),
    Kind("effects", "pause", 0.5, 3),
    Kind("effects", "pause", 5, 8),
    Kind("mail", "kill", 0, 2),
    Kind("mail", "pause", 0.5, 3),
    Kind("mail", "pause", 5, 8),
    Kind("webhooks", "kill", 0, 2),
    Kind("webhooks", "pause", 5, 8),
    Kind("database", "terminate_sessions", 0, 0),
    Kind("database", "kill", 0, 3),
    Kind("database", "shut_down_immediately", 0, 3),
    Kind("database", "pause", 0.5, 4),
    Kind("broker", "kill", 0, 3),
    Kind("broker", "pause", 0.5, 4),
    Kind("broker", "wipe", 0, 0),
    Kind("lms", "away", 2, 6),
    Kind("lms", "slow", 3, 8),
    Kind("lms", "failing", 3, 8),
    Kind("lms", "refusing", 2, 4),
    Kind("lms", "late", 3, 8),
    Kind("lms", "losing_answers", 3, 8),
    Kind("mail_server", "rejecting", 3, 8),
    Kind("mail_server", "refusing", 2, 4),
    Kind("mail_server", "hanging_up", 3, 6),
    Kind("mail_server", "losing_answers", 3, 8),
    Kind("endpoint", "kill", 1, 4),
    Kind("endpoint", "failing", 3, 8),
    Kind("endpoint", "late", 3, 8),
    Kind("endpoint", "losing_answers", 3, 8),
    Kind("operator", "retry_failed", 0, 0),
    Kind("operator", "cancel_and_retry", 0.2, 2),
    Kind("shards", "reshard", 0.5, 4),
)


CLUSTER_KINDS: Mapping[Cluster, Sequence[Kind]] = {
    # In place of the faults of the engine that is a cluster.
    "rabbitmq": (
        # No wipe: RabbitMQ 3.10 does not always tell a consumer that its quorum queue was deleted (docs/scale.md).
        Kind("broker", "kill_leader", 0, 6),
        Kind("broker", "kill_node", 0, 6),
        Kind("broker", "pause_leader", 0.5, 12),
    ),
    "postgresql": (
        Kind("database", "fail_over", 0, 3),
        Kind("database", "switch_over", 0, 0),
        Kind("database", "wake_demoted", 2, 8),
        Kind("database", "pause_standby", 0.5, 4),
        Kind("database", "terminate_sessions", 0, 0),
    ),
    "sentinel": (
        Kind("broker", "fail_over", 0, 3),
        Kind("broker", "freeze", 0, 3),
        Kind("broker", "cut_replicas_and_kill", 0.5, 5),
        Kind("broker", "wipe", 0, 0),
    ),
    "machines": (Kind("machine", "cut", 5, 60),),
    "partitions": (Kind("tables", "divide_and_drop", 0, 2),),
}


def kinds_of(cluster: Cluster | None, *, only: bool = False) -> Sequence[Kind]:
    """The kinds of faults of a storm.

    Parameters:
        cluster: None for one server of each engine.
        only: leave out what is not about the cluster.
    """
    if cluster is None:
        return KINDS
    own = CLUSTER_KINDS[cluster]
    replaced = {kind.target for kind in own}
    return own if only else (*(kind for kind in KINDS if kind.target not in replaced), *own)


class Fault(NamedTuple):
    """One fault: seconds after the start, which process or service, what, and for how many seconds.

    Faults of different targets overlap; one whose target is still at the one before begins when that is over.
    """

    at_s: float
    target: str
    what: str
    for_s: float


def plan(
    seed: int, duration_s: float, kinds: Sequence[Kind] = KINDS, spacing_s: float = SPACING_S
) -> list[Fault]:
    """The faults of a run, in order. Each kind comes once before any comes again, and once at least."""
    chance = random.Random(f"plan {seed}")
    number = max(len(kinds), round(duration_s / spacing_s))
    step = (duration_s - CALM_START_S) / number
    drawn = _decks(chance, kinds, number)
    return sorted(
        _fault(chance, kind, CALM_START_S + step * (n + chance.random())) for n, kind in enumerate(drawn)
    )


def _decks(chance: random.Random, kinds: Sequence[Kind], number: int) -> Sequence[Kind]:
    drawn: list[Kind] = []
    while len(drawn) < number:
        drawn += chance.sample(kinds, len(kinds))
    return drawn[:number]


def _fault(chance: random.Random, kind: Kind, at_s: float) -> Fault:
    target = kind.target
    if target in PROCESSES:
        target = f"{target}.{chance.randrange(PROCESSES[target])}"
    return Fault(round(at_s, 2), target, kind.what, round(chance.uniform(kind.shortest_s, kind.longest_s), 2))
