"""The commands stage alone: from the queue to the commit.

No relay and no effects run. Each command is a transition. The queue is filled first, then `invigilator consume`
starts. PostgreSQL records the time of each commit. A number of first commands (`warm_commands`) is left out,
and with them the start of the process. The rate is measured from the commit of the last of these to the last
commit of all. CPU is measured from a moment after these commands to the end, and divided by the commands that
were committed in between.
"""

from collections.abc import Mapping, Sequence
from functools import partial

from benchmarks import rivals
from benchmarks.bench import Bench, Contestant, Figures
from benchmarks.engines import Broker
from benchmarks.preload import preload
from benchmarks.workload import COMMANDS_PER_LEARNER, FIRST_WAVE, SECOND_WAVE, steps

NAME = "commands"
BATCHES = (1, 10, 100, 500)
LEARNERS = {1: 80, 10: 300, 100: 1_000}
"""The number of learners of a run by batch size, chosen so that a run takes a few seconds."""
FLOOR_LEARNERS = {("prepared", 1): 200, ("prepared", 100): 4_000, ("values", 100): 2_400, ("rows", 100): 500}
"""The number of learners of a run of the floor, by its way to write and the commands that it commits at once."""
FLOORS = {"prepared": "floor", "values": "floor, execute_values", "rows": "floor, a statement a row"}
"""The names of the floors by their way to write."""
LOOK_S = 0.01

_RATE = """
WITH commits AS (
    SELECT pg_xact_commit_timestamp(xmin) AS at, row_number() OVER (ORDER BY inbox_id) AS number
    FROM outcomes WHERE inbox_id > %s
), start AS (SELECT at FROM commits WHERE number = %s)
SELECT count(*), extract(epoch FROM max(commits.at) - min(start.at)) FROM commits, start WHERE commits.at > start.at
"""


def floor_name(commit_every: int, how: str = "prepared") -> str:
    """Return the contestant's name."""
    return f"{FLOORS[how]}, {commit_every} per commit"


def ours_name(broker: str, batch: int) -> str:
    """Return the contestant's name."""
    return f"ours on {broker}, batch {batch}"


def contestants(bench: Bench) -> Sequence[Contestant]:
    """Return the floors, and our system with each batch size on each broker."""
    batches = (100,) if bench.quick else BATCHES
    floors = [("values", 100)] if bench.quick else FLOOR_LEARNERS
    return [
        *(Contestant(floor_name(every, how), partial(_floor, bench, how, every)) for how, every in floors),
        *(
            Contestant(ours_name(broker.name, batch), partial(_ours, bench, broker, batch))
            for batch in batches
            for broker in bench.brokers
        ),
    ]


def _floor(bench: Bench, how: str, commit_every: int) -> Figures:
    return rivals.floor(bench, how, commit_every, FLOOR_LEARNERS[how, commit_every])


def _ours(bench: Bench, broker: Broker, batch: int) -> Figures:
    learners = _learners(batch)
    return drain(bench, broker, learners, warm_commands(batch), {"BATCH_SIZE": batch})


def _learners(batch: int) -> int:
    return LEARNERS.get(batch, max(LEARNERS.values()))


def warm_commands(batch: int) -> int:
    """Return how many first commands are left out: two batches, but at least 100 commands."""
    return max(2 * batch, 100)


def drain(
    bench: Bench,
    broker: Broker,
    learners: int,
    warm: int,
    settings: Mapping[str, object] | None = None,
    database_url: str | None = None,
) -> Figures:
    """Measure a consumer that drains a queue of commands.

    Parameters:
        bench: the run.
        broker: the broker that holds the queue.
        learners: the number of learners whose commands are measured.
        warm: the number of commands before them that are not measured.
        settings: the settings, without the prefix.
        database_url: the database to use. The default is a fresh one.
    """
    extra = -(-warm // COMMANDS_PER_LEARNER)
    with bench.ours(broker, learners + extra, settings, database_url) as system:
        commands = preload(broker, steps(system.learners, FIRST_WAVE + SECOND_WAVE))
        base = system.last_inbox_id()
        system.checkpoint()
        system.start("commands")
        system.wait_for_commands(warm, base, LOOK_S)
        meter = system.meter()
        first, before = system.handled_since(base), meter.read()
        system.wait_for_commands(commands, base, LOOK_S)
        usage, memory = meter.read().since(before), meter.memory()
        [[number, seconds]] = system.rows(_RATE, base, warm)
    return {
        **usage.figures("command", commands - first),
        **memory,
        "commands_per_s": number / float(seconds),
    }
