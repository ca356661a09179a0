"""How far one PostgreSQL goes: its work for commands and for effects, on a core of its own.

`python -m benchmarks.limit` gives PostgreSQL one core, and everything else the others. It does what `consume`,
the relay and the workers do in the database, with their code, and leaves out what they do elsewhere: no broker, no
Celery, no calls. It has two stages:

- *commands*: each shard's process commits batches that were decoded before.
- *effects*: as many processes offer, claim and record what the commands owe, and do the cascades.

For each stage it says how much CPU PostgreSQL has used, and how much our code has, which runs in one thread of each
process: no thread waits for another. It also says how much of its core PostgreSQL has used. Where that is all that
it had, the rate is the limit. Where it is less, the other cores were; then the rate for each CPU second of
PostgreSQL counts. With few cores `--share 0.3` gives PostgreSQL a third of its core, in a control group, which
needs root. PostgreSQL is as durable as by default: `fsync` and `synchronous_commit` are on.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import psutil

from benchmarks import ours
from benchmarks.engines import connect
from benchmarks.meter import Meter
from benchmarks.preload import body_of
from benchmarks.workload import FIRST_WAVE, SECOND_WAVE, Step, steps
from db import offers
from db import shards as owners
from db.effects import Claim, TryEnd, Wanted
from db.states import TryResult
from events.sharding import shard_of
from invigilator.local import postgres
from invigilator.local.guard import Guard
from worker import effects_wiring, logs, wiring
from worker.commands.batches import Batches
from worker.commands.decoding import decode
from worker.commands.sources import Message
from worker.effects import circuit
from worker.effects.action import Run
from worker.effects.cascade import decline
from worker.effects.coalescer import CROWD
from worker.effects.runner import Result, Runner
from worker.kinds import QUEUES, EffectKind
from worker.lms.ports import Deadline
from worker.processes import RELAY_SESSION, session_settings
from worker.settings import Settings

LEARNERS, SHARDS, BATCH = 4_000, 4, 100
WARM_LEARNERS = 200
ROOM = 100
"""How many effects of a kind are offered in one round."""
LEASE_S = 600
READY_S = 120
"""Seconds in which a process must be ready."""
CGROUPS = Path("/sys/fs/cgroup")
PERIOD_US = 20_000
"""Of each so many microseconds PostgreSQL gets its share."""

_COUNTERS = """
SELECT pg_current_wal_insert_lsn() - '0/0' AS wal_bytes, wal_fpi,
    (SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()) AS commits,
    (SELECT count(*) FROM outcomes) AS commands, (SELECT count(*) FROM transitions) AS transitions,
    (SELECT count(*) FROM effects WHERE state = 'done') AS effects
FROM pg_stat_wal
"""
_LEARNERS = """
INSERT INTO learners (user_id, username, email, full_name)
SELECT n, 'learner' || n, 'learner' || n || '@example.org', 'Learner ' || n FROM generate_series(0, %s - 1) AS n
"""

Begin = Callable[[], None]
Work = Callable[[Begin], None]
"""Prepares itself, calls what waits for the others, and does what is measured."""
Figures = dict[str, float]


@dataclass(frozen=True, slots=True)
class Plan:
    """What is measured.

    Parameters:
        learners: how many. Each has six commands, ten transitions, and eight effects.
        shards: how many, each with a process.
        batch: how many commands there are in a batch.
    """

    learners: int
    shards: int
    batch: int


@dataclass(frozen=True, slots=True)
class Server:
    """A PostgreSQL that has a core of its own.

    Parameters:
        url: of a database with the schema.
        pid: of the server.
        others: the cores of everything else.
    """

    url: str
    pid: int
    others: Sequence[int]

    def counters(self) -> Mapping[str, int]:
        """What the server has done since it was started."""
        connection = connect(self.url)
        with connection.cursor() as cursor:
            cursor.execute(_COUNTERS)
            names = [column.name for column in cursor.description]
            values = dict(zip(names, map(int, cursor.fetchone()), strict=True))
        connection.close()
        return values


# --- what the processes do ---------------------------------------------------------------------------------


def commit(settings: Settings, shard: int, todo: Sequence[Step], batch: int, begin: Begin) -> None:
    """Commit the commands of one shard, as its owner does."""
    engine = wiring.database_engine(
        settings, f"shard {shard}", session_settings=session_settings(settings), pre_ping=False
    )
    batches = Batches(engine, wiring.handler(settings), LEASE_S)
    items = [decode(Message(body_of(step), None)) for step in todo]
    with engine.begin() as connection:
        fence = owners.take(connection, shard, f"limit-{os.getpid()}", LEASE_S)
    assert fence is not None, "somebody else has the shard"
    begin()
    for first in range(0, len(items), batch):
        batches.commit(fence, items[first : first + batch])
    with engine.begin() as connection:
        owners.release(connection, fence)


def work_off(settings: Settings, begin: Begin) -> None:
    """Offer effects, and run them, until none is due. Their calls reach nobody."""
    relay = wiring.database_engine(settings, "relay", session_settings=RELAY_SESSION, pre_ping=False)
    runner = effects_wiring.runner(settings)
    rooms = dict.fromkeys(QUEUES, ROOM)
    begin()
    while True:
        with relay.begin() as connection:
            due = offers.find_due(connection, list(QUEUES))
            made = offers.offer(connection, due, rooms, LEASE_S).made
        if not made and not due.kinds:
            return
        for first in range(0, len(made), CROWD):
            _run(runner, [Wanted(one.id, one.kind, QUEUES[one.kind]) for one in made[first : first + CROWD]])


def _run(runner: Runner, wanted: Sequence[Wanted]) -> None:
    claims = [claim for claim in runner.claim_together(wanted) if isinstance(claim, Claim)]
    cascades = [claim for claim in claims if claim.kind == EffectKind.CASCADE_DECLINE]
    if cascades:
        deadline = Deadline.after(LEASE_S)
        read = EffectKind.CASCADE_DECLINE.entry.read
        decline([Run(claim, read(claim.payload), runner.tools, deadline) for claim in cascades])
    called = [claim for claim in claims if claim not in cascades]
    if called:
        runner.record_together(
            [
                Result(claim, TryEnd(claim.id, claim.number, TryResult.DONE), circuit.note_answer)
                for claim in called
            ]
        )


# --- measuring ---------------------------------------------------------------------------------------------


def measured(server: Server, works: Sequence[Work]) -> Figures:
    """Run each in a process of its own, and return what PostgreSQL and they have used."""
    context = get_context("fork")
    barrier, spent_s = context.Barrier(len(works) + 1, timeout=READY_S), context.Value("d", 0.0)
    processes = [
        context.Process(target=_pinned, args=(server.others, work, barrier, spent_s)) for work in works
    ]
    for process in processes:
        process.start()
    _execute(server.url, "CHECKPOINT")
    meter, counted = Meter({"postgres": [server.pid]}), server.counters()
    barrier.wait()
    before, began = meter.read(), time.perf_counter()
    for process in processes:
        process.join()
    seconds, used = time.perf_counter() - began, meter.read().since(before).cpu_s["postgres"]
    if any(process.exitcode for process in processes):
        raise SystemExit("a process has failed")
    after = server.counters()
    counts = {name: after[name] - counted[name] for name in after}
    return {"seconds": seconds, "cpu_s": used, "ours_cpu_s": spent_s.value, **counts}


def _pinned(cores: Sequence[int], work: Work, barrier: Any, spent_s: Any) -> None:
    os.sched_setaffinity(0, cores)

    def add(seconds: float) -> None:
        with spent_s.get_lock():
            spent_s.value += seconds

    def begin() -> None:
        barrier.wait()
        add(-time.process_time())

    work(begin)
    add(time.process_time())


def _execute(url: str, statement: str, *values: object) -> None:
    connection = connect(url)
    with connection.cursor() as cursor:
        cursor.execute(statement, values or None)
    connection.close()


def waves(server: Server, plan: Plan, learners: range) -> Iterator[tuple[str, Figures]]:
    """Measure both waves of the workload. The second one begins when nothing is owed, so nothing is superseded."""
    settings = Settings(
        database_url=server.url,
        shard_lease_s=LEASE_S,
        lease_s=LEASE_S,
        retry_for_s=LEASE_S,
    )
    for wave in (FIRST_WAVE, SECOND_WAVE):
        todo = list(steps(learners, wave))
        of_shard = [
            [step for step in todo if shard_of(str(step.learner), plan.shards) == shard]
            for shard in range(plan.shards)
        ]
        works = [
            partial(commit, settings, shard, of_shard[shard], plan.batch) for shard in range(plan.shards)
        ]
        yield "commands", measured(server, works)
        yield "effects", measured(server, [partial(work_off, settings)] * plan.shards)


def measure(server: Server, plan: Plan) -> dict[str, Figures]:
    """Return the figures of both stages, warmed up."""
    ours.prepare(server.url)
    _execute(server.url, _LEARNERS, WARM_LEARNERS + plan.learners)
    connection = wiring.database_engine(Settings(database_url=server.url), "limit")
    with connection.begin() as begun:
        owners.ensure_shards(begun, plan.shards)
    connection.dispose()
    list(waves(server, plan, range(WARM_LEARNERS)))
    _execute(server.url, "VACUUM ANALYZE")
    sums: dict[str, Figures] = {}
    for stage, figures in waves(server, plan, range(WARM_LEARNERS, WARM_LEARNERS + plan.learners)):
        known = sums.setdefault(stage, dict.fromkeys(figures, 0))
        sums[stage] = {name: known[name] + figures[name] for name in figures}
    return sums


def rates(sums: Mapping[str, Figures]) -> dict[str, Figures]:
    """Return the figures that docs/scale.md has."""
    commands, effects = sums["commands"], sums["effects"]
    together = {name: commands[name] + effects[name] for name in commands}
    return {
        "commands": _rates(commands, "command", commands["commands"]),
        "effects": _rates(effects, "effect", effects["effects"]),
        "together": _rates(together, "transition", together["transitions"]),
    }


def _rates(figures: Figures, unit: str, number: float) -> Figures:
    return {
        f"{unit}s": number,
        f"{unit}s_per_s": number / figures["seconds"],
        f"{unit}s_per_cpu_s": number / figures["cpu_s"],
        f"cpu_ms_per_{unit}": 1000 * figures["cpu_s"] / number,
        f"ours_cpu_ms_per_{unit}": 1000 * figures["ours_cpu_s"] / number,
        "core_in_use": figures["cpu_s"] / figures["seconds"],
        f"wal_bytes_per_{unit}": figures["wal_bytes"] / number,
        f"page_images_per_{unit}": figures["wal_fpi"] / number,
        f"commits_per_{unit}": figures["commits"] / number,
        "commits_per_s": figures["commits"] / figures["seconds"],
    }


@contextmanager
def limited(pids: Sequence[int], share: float) -> Iterator[None]:
    """Give processes, and those that they start, a share of a core."""
    is_old = (CGROUPS / "cpu").exists()
    group = (CGROUPS / "cpu" if is_old else CGROUPS) / f"invigilator-limit-{os.getpid()}"
    group.mkdir()
    quota = int(share * PERIOD_US)
    limits = {"cpu.cfs_period_us": f"{PERIOD_US}", "cpu.cfs_quota_us": f"{quota}"}
    for name, value in (limits if is_old else {"cpu.max": f"{quota} {PERIOD_US}"}).items():
        (group / name).write_text(value)
    try:
        for pid in pids:
            with suppress(ProcessLookupError):
                (group / "cgroup.procs").write_text(f"{pid}")
        yield
    finally:
        group.rmdir()


@contextmanager
def running(share: float) -> Iterator[Server]:
    """A durable PostgreSQL with a share of the first core."""
    first, *others = sorted(os.sched_getaffinity(0))
    if not others:
        raise SystemExit("two cores are needed: one for PostgreSQL, and others for everything else")
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="invigilator-limit-"))
        guard = stack.enter_context(Guard())
        server = postgres.start(Path(folder), watch=guard.watch_engine)
        root = psutil.Process(server.process.pid)
        processes = [root, *root.children(recursive=True)]
        if share < 1:
            stack.enter_context(limited([process.pid for process in processes], share))
        stack.callback(server.stop)
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.cpu_affinity([first])  # backends inherit it
        os.sched_setaffinity(0, others)
        yield Server(server.url, root.pid, others)


def main() -> None:
    """Measure, and print the figures as JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.limit")
    parser.add_argument("--learners", type=int, default=LEARNERS)
    parser.add_argument("--shards", type=int, default=SHARDS)
    parser.add_argument("--batch", type=int, default=BATCH)
    parser.add_argument(
        "--share", type=float, default=1, help="of its core, for PostgreSQL; needs root if below 1"
    )
    wanted = parser.parse_args()
    logs.configure(None, "error")
    with running(wanted.share) as server:
        figures: Any = rates(measure(server, Plan(wanted.learners, wanted.shards, wanted.batch)))
    sys.stdout.write(json.dumps(figures, indent=2, default=float) + "\n")


if __name__ == "__main__":
    main()
