"""Whether workers scale: one and two processes each of `effects` and `mail`, with services of 400 ms.

The services are so slow that the threads of the workers are the limit, and not the CPUs.
"""

from collections.abc import Sequence
from functools import partial

from benchmarks.bench import Bench, Contestant
from benchmarks.groups.services import measure
from benchmarks.groups.services import ours_name as ours_name

NAME = "scaling"
SERVICE_MS = 400
"""At 200 ms, the threads of two processes took 1.4 of two CPUs. At 400 ms the CPUs are clearly not the limit."""
LEARNERS = 80


def contestants(bench: Bench) -> Sequence[Contestant]:
    """Return our system with one and with two processes of each worker, on each broker."""
    return [
        Contestant(
            ours_name(broker.name, workers), partial(measure, bench, broker, SERVICE_MS, workers, LEARNERS)
        )
        for workers in (1, 2)
        for broker in bench.brokers
    ]
