"""Whether a process grows: its resident memory after 10,000 commands with all effects, and after 200,000.

The limit is about our processes only. Resident memory counts shared pages for each process that has touched them,
so PostgreSQL's grows until each session has touched all shared buffers. There is one round without a warm-up,
because a round has to handle 200,000 commands and their effects.
"""

from collections.abc import Sequence
from functools import partial

from benchmarks.bench import Bench, Contestant, Figures
from benchmarks.engines import Broker
from benchmarks.ours import EVERYBODY
from benchmarks.preload import preload
from benchmarks.workload import COMMANDS_PER_LEARNER, FIRST_WAVE, SECOND_WAVE, steps

NAME = "memory"
ROUNDS = 1
EARLY, LATE = 10_000, 200_000


def ours_name(broker: str) -> str:
    """Return the contestant's name."""
    return f"ours on {broker}"


def contestants(bench: Bench) -> Sequence[Contestant]:
    """Return our system on each broker."""
    return [Contestant(ours_name(broker.name), partial(_grown, bench, broker)) for broker in bench.brokers]


def _grown(bench: Bench, broker: Broker) -> Figures:
    with bench.ours(broker, (LATE + EARLY) // COMMANDS_PER_LEARNER + 2) as system:
        for name in EVERYBODY:
            system.start(name)
        system.wait_until_ready()
        meter, done, early = system.meter(), 0, Figures()
        while done * COMMANDS_PER_LEARNER < LATE:
            base, learners = system.last_inbox_id(), range(done, done + EARLY // COMMANDS_PER_LEARNER + 1)
            published = preload(broker, steps(learners, FIRST_WAVE + SECOND_WAVE))
            system.wait_for({"commands": published}, base)
            done = learners.stop
            bench.say(f"memory, {broker.name}: {done * COMMANDS_PER_LEARNER:,} commands")
            early = early or meter.memory()
        late = meter.memory()
    names = [name.removeprefix("rss_mb.") for name in late if name.startswith("rss_mb.")]
    return {
        **{f"early_rss_mb.{name}": early[f"rss_mb.{name}"] for name in names},
        **{f"late_rss_mb.{name}": late[f"rss_mb.{name}"] for name in names},
        "growth": max(late[f"rss_mb.{name}"] / early[f"rss_mb.{name}"] for name in EVERYBODY) - 1,
    }
