"""Whether shards scale: four shards, drained by one, two and four processes, and what limits the rate.

The processes are started and warmed up, then paused (SIGSTOP) while the queues are filled. The clock runs from
SIGCONT until everything is committed.
"""

import signal
import time
from collections.abc import Sequence
from functools import partial

import psutil

from benchmarks.bench import Bench, Contestant, Figures
from benchmarks.engines import Broker
from benchmarks.groups.commands import LOOK_S
from benchmarks.preload import preload
from benchmarks.workload import FIRST_WAVE, SECOND_WAVE, steps

NAME = "shards"
SHARDS = 4
PROCESSES = (1, 2, 4)
WARM_LEARNERS = 200
SETTINGS = {
    "COMMAND_SHARDS": SHARDS,
    "SHARD_LEASE_S": 60,  # the lease must outlast the pause of a few seconds
}


def ours_name(broker: str, processes: int) -> str:
    """Return the contestant's name."""
    return f"ours on {broker}, {SHARDS} shards, {processes} processes"


def contestants(bench: Bench) -> Sequence[Contestant]:
    """Return our system with one, two and four processes, on each broker."""
    return [
        Contestant(ours_name(broker.name, processes), partial(_measure, bench, broker, processes))
        for broker in bench.brokers
        for processes in PROCESSES
    ]


def _measure(bench: Bench, broker: Broker, processes: int) -> Figures:
    learners = bench.size(2_000, 500)
    with bench.ours(broker, WARM_LEARNERS + learners, SETTINGS) as system:
        system.start("commands", processes)
        system.wait_until_ready()
        wave = FIRST_WAVE + SECOND_WAVE
        system.wait_for_commands(preload(broker, steps(range(WARM_LEARNERS), wave), SHARDS), 0)
        for process in system.processes:
            process.signal(signal.SIGSTOP)
        commands = preload(broker, steps(range(WARM_LEARNERS, WARM_LEARNERS + learners), wave), SHARDS)
        base, meter = system.last_inbox_id(), system.meter()
        system.checkpoint()
        before, began = meter.read(), time.perf_counter()
        for process in system.processes:
            process.signal(signal.SIGCONT)
        system.wait_for_commands(commands, base, LOOK_S)
        seconds, usage = time.perf_counter() - began, meter.read().since(before)
    return {
        **usage.figures("command", commands),
        "commands_per_s": commands / seconds,
        "cpus": float(psutil.cpu_count() or 1),
    }
