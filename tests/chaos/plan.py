"""The schedule of faults, computed from the seed alone."""

import random
from collections.abc import Sequence
from typing import NamedTuple

SPACING_S = 1.6
"""Between the beginnings of two faults, on average."""
CALM_START_S = 1.0

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
)


class Fault(NamedTuple):
    """One fault: seconds after the start, which process or service, what, and for how many seconds.

    Faults of different targets overlap; one whose target is still at the one before begins when that is over.
    """

    at_s: float
    target: str
    what: str
    for_s: float


def plan(seed: int, duration_s: float) -> list[Fault]:
    """The faults of a run, in order. Each kind comes once before any comes again, and once at least."""
    chance = random.Random(f"plan {seed}")
    number = max(len(KINDS), round(duration_s / SPACING_S))
    step = (duration_s - CALM_START_S) / number
    kinds = _decks(chance, number)
    return sorted(
        _fault(chance, kind, CALM_START_S + step * (n + chance.random())) for n, kind in enumerate(kinds)
    )


def _decks(chance: random.Random, number: int) -> Sequence[Kind]:
    drawn: list[Kind] = []
    while len(drawn) < number:
        drawn += chance.sample(KINDS, len(KINDS))
    return drawn[:number]


def _fault(chance: random.Random, kind: Kind, at_s: float) -> Fault:
    target = kind.target
    if target in PROCESSES:
        target = f"{target}.{chance.randrange(PROCESSES[target])}"
    return Fault(round(at_s, 2), target, kind.what, round(chance.uniform(kind.shortest_s, kind.longest_s), 2))
