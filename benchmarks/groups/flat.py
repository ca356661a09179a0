"""Whether the length of the queue matters: the rate while 1,000 and 100,000 queued commands are drained.

The short queue is drained in less than a second, so its rates scatter.
"""

from collections.abc import Sequence
from functools import partial

from benchmarks.bench import Bench, Contestant
from benchmarks.groups.commands import drain, warm_commands
from benchmarks.workload import COMMANDS_PER_LEARNER

NAME = "flat"
SHORT, LONG = 1_000, 100_000
BATCH = 100


def ours_name(broker: str, queued: int) -> str:
    """Return the contestant's name."""
    return f"ours on {broker}, {queued:,} queued"


def contestants(bench: Bench) -> Sequence[Contestant]:
    """Return our system with a short and a long queue, on each broker."""
    return [
        Contestant(
            ours_name(broker.name, queued),
            partial(drain, bench, broker, queued // COMMANDS_PER_LEARNER, warm_commands(BATCH)),
        )
        for broker in bench.brokers
        for queued in (SHORT, LONG)
    ]
