"""One and two processes of `effects` and `mail` each; services so slow that threads are the limit, not CPUs."""

from collections.abc import Sequence
from functools import partial

from benchmarks.bench import Bench, Contestant
from benchmarks.groups.services import measure
from benchmarks.groups.services import ours_name as ours_name

NAME = "scaling"
SERVICE_MS = 400
"""So long that the threads of two processes need much less than two CPUs; at 200 ms they took 1.4."""
LEARNERS = 80


def contestants(bench: Bench) -> Sequence[Contestant]:
    """One and two, on each broker."""
    return [
        Contestant(
            ours_name(broker.name, workers), partial(measure, bench, broker, SERVICE_MS, workers, LEARNERS)
        )
        for workers in (1, 2)
        for broker in bench.brokers
    ]
