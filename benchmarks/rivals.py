"""The peer and the floor: contestants that are one driver process each, with a database of its own."""

import json
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from itertools import chain
from statistics import median
from typing import Any

from benchmarks.bench import Bench, Contestant, Figures
from benchmarks.engines import Broker
from benchmarks.floor import queues
from benchmarks.floor.database import connect
from benchmarks.flushes import Flushes
from benchmarks.meter import Meter
from benchmarks.running import (
    READY_TIMEOUT_S,
    ROOT,
    BenchmarkError,
    Process,
    driver,
    plain_environment,
)
from benchmarks.workload import (
    COMMANDS_PER_LEARNER,
    CREDITS_PER_LEARNER,
    MAILS_PER_LEARNER,
    TRANSITIONS_PER_LEARNER,
)
from db.migrate import upgrade
from invigilator.local.guard import Guard

PEER_PYTHON = ROOT / "benchmarks" / "peer" / ".venv" / "bin" / "python"
PEER_SCRIPT = ROOT / "benchmarks" / "peer" / "run.py"
PEER, FLOOR = "peer", "floor"
UPDATES = ("started", "submitted", "verified")
"""The statuses whose update changes one attempt only."""
_EVERYTHING = {
    "transitions": TRANSITIONS_PER_LEARNER,
    "credits": CREDITS_PER_LEARNER,
    "mails": MAILS_PER_LEARNER,
}
DONE = {PEER: _EVERYTHING, FLOOR: {"transitions": COMMANDS_PER_LEARNER}}
"""By contestant: the results that each learner must have in the end."""
WARM_LEARNERS = 3
WORKERS_BY_HAND = 3
"""As many effects as a command owes at once."""
PATIENCE_S = 900
_OWED_BY_HAND = "SELECT FROM effects WHERE state <> 'done' LIMIT 1"
_DONE_BY_HAND = """
SELECT extract(epoch FROM max(effects.done_at))::float8
FROM inbox LEFT JOIN effects USING (source, command_id)
GROUP BY inbox.id
ORDER BY inbox.id
"""

Rows = Callable[[str], list[tuple[Any, ...]]]
"""Runs a query, and returns its rows."""


def available(contestants: Sequence[Contestant]) -> list[Contestant]:
    """Return the contestants that are installed."""
    return [one for one in contestants if one.name != PEER or PEER_PYTHON.exists()]


def peer(
    bench: Bench, learners: int, service_ms: int = 0, pause_s: tuple[float, float] | None = None
) -> Figures:
    """Measure edx-proctoring.

    Parameters:
        learners: the number of learners.
        service_ms: milliseconds that each call of a service and each mail takes.
        pause_s: the range of a random pause in seconds before each call, or None for no pauses.
    """
    command = [str(PEER_PYTHON), str(PEER_SCRIPT), "--service-ms", str(service_ms)]
    warm_learners = 1 if service_ms else WARM_LEARNERS
    return _run(bench, PEER, command, learners, warm_learners, pause_s)


def floor(bench: Bench, how: str, commit_every: int, learners: int) -> Figures:
    """Measure code written by hand with psycopg2. `how` names a way of `benchmarks.floor.ways`."""
    return _run(bench, FLOOR, _floor(how, commit_every), learners, warm_learners=20)


@dataclass(frozen=True, slots=True)
class Handled:
    """Unix times of a message to the floor: around the call that sent it, of its commit, and of its last effect."""

    before: float
    after: float
    committed: float
    effects_done: float | None
    """None if it owes no effect."""


def floor_latency(bench: Bench, broker: Broker, learners: int, pause_s: tuple[float, float]) -> list[Handled]:
    """Measure the latency of code written by hand, with a random pause before each message.

    An effect's result counts from its own time stamp, to which the mean time of a flush is added (`Flushes`).
    """
    broker.reset()
    body = json.dumps({"of": "the size of a command", "body": 500 * "x"})
    warm = WARM_LEARNERS * COMMANDS_PER_LEARNER
    with (
        _database(bench, FLOOR, _floor("prepared", 1)) as url,
        _driver(bench, FLOOR, [*_floor("prepared", 1), *_engines(url, broker)]) as process,
        _effects_by_hand(bench, url, broker) as parts,
        _reading(url) as rows,
    ):
        process.tell({"first": 0, "learners": WARM_LEARNERS + learners})
        queue, sent = queues.connect(broker.url), []
        flushes = Flushes(rows)
        for _ in range(warm + learners * COMMANDS_PER_LEARNER):
            time.sleep(random.uniform(*pause_s))  # noqa: S311 - no secret
            before = time.time()
            queue.send(body)
            sent.append((before, time.time()))
        committed = process.answer(PATIENCE_S)["committed_at"]
        done = _effects_done(rows, flushes, parts)
    return [
        Handled(*times, committed_at, done_at)
        for times, committed_at, done_at in zip(sent, committed, done, strict=True)
    ][warm:]


def _engines(database_url: str, broker: Broker) -> list[str]:
    return ["--database-url", database_url, "--broker-url", broker.url]


@contextmanager
def _effects_by_hand(bench: Bench, database_url: str, broker: Broker) -> Iterator[Sequence[Process]]:
    command = ["python", "-m", "benchmarks.floor.effects"]
    parts = []
    with Guard() as guard, ExitStack() as stack:
        for part in ["relay", *["worker"] * WORKERS_BY_HAND]:
            process = Process(
                part,
                [*command, part, *_engines(database_url, broker)],
                plain_environment(),
                bench.folder / f"{FLOOR}-{part}.log",
                guard,
                talks=True,
            )
            stack.callback(process.kill)
            process.answer(READY_TIMEOUT_S)
            parts.append(process)
        yield parts


@contextmanager
def _reading(database_url: str) -> Iterator[Rows]:
    with closing(connect(database_url)) as connection, connection.cursor() as cursor:

        def rows(query: str) -> list[tuple[Any, ...]]:
            cursor.execute(query)
            return cursor.fetchall()

        yield rows


def _effects_done(rows: Rows, flushes: Flushes, parts: Sequence[Process]) -> list[float | None]:
    """Wait until nothing is owed. Return the times by command, in the order of their commits."""
    give_up = time.monotonic() + PATIENCE_S
    while rows(_OWED_BY_HAND):
        for part in parts:
            part.check()
        if time.monotonic() > give_up:
            raise BenchmarkError(f"the floor still owes effects after {PATIENCE_S} s")
        time.sleep(0.1)
    flush_s = flushes.mean_s()
    return [None if done is None else done + flush_s for (done,) in rows(_DONE_BY_HAND)]


def _floor(how: str, commit_every: int) -> list[str]:
    return ["python", "-m", "benchmarks.floor", "--how", how, "--commit-every", str(commit_every)]


def _run(
    bench: Bench,
    name: str,
    command: Sequence[str],
    learners: int,
    warm_learners: int = WARM_LEARNERS,
    pause_s: tuple[float, float] | None = None,
) -> Figures:
    # The CPU of PostgreSQL includes the inserts of learners that floor and peer do before their clocks start.
    with _started(bench, name, command) as process:
        process.ask({"first": 0, "learners": warm_learners}, PATIENCE_S)
        database = bench.engines.database
        database.execute("CHECKPOINT")
        roots = {"postgres": [database.pid], name: [process.pid]}
        meter = Meter(roots)
        before = meter.read()
        request = {"first": warm_learners, "learners": learners, "pause_s": pause_s}
        answer = process.ask(request, PATIENCE_S)
        usage = meter.read().since(before)
        _verify(name, answer, learners)
        if "cpu_seconds" in answer:  # the driver's own CPU without its preparation
            usage = replace(usage, cpu_s={**usage.cpu_s, name: answer["cpu_seconds"]})
        return {
            **usage.figures("transition", answer["transitions"]),
            **meter.memory(),
            "seconds": answer["seconds"],
            "transitions_per_s": answer["transitions"] / answer["seconds"],
            **_commands(answer.get("commands"), answer["seconds"], usage.total_cpu_s),
            **_steps(answer.get("steps_ms", {})),
            **_waits(answer, learners),
        }


@contextmanager
def _started(bench: Bench, name: str, command: Sequence[str]) -> Iterator[Process]:
    """Yield a driver that is ready, with a database of its own."""
    with (
        _database(bench, name, command) as url,
        _driver(bench, name, [*command, "--database-url", url]) as process,
    ):
        yield process


@contextmanager
def _database(bench: Bench, name: str, command: Sequence[str]) -> Iterator[str]:
    """Yield the URL of a database that a driver has prepared."""

    def prepare(url: str) -> None:
        if name == FLOOR:
            upgrade(url)  # the floor writes rows of our schema
        with _driver(bench, name, [*command, "--database-url", url]):
            pass  # what the driver creates before it is ready becomes part of the template

    with bench.engines.database.fresh(name, prepare) as url:
        yield url


def _verify(name: str, answer: Mapping[str, Any], learners: int) -> None:
    """Make sure that a contestant has done all of its work."""
    wanted = {what: number * learners for what, number in DONE[name].items()}
    done = {what: answer[what] for what in wanted}
    if done != wanted:
        raise BenchmarkError(f"{name} has done {done} of {wanted}")


def _commands(commands: int | None, seconds: float, cpu_s: float) -> Figures:
    if commands is None:
        return {}
    return {"commands_per_s": commands / seconds, "cpu_ms_per_command": 1000 * cpu_s / commands}


@contextmanager
def _driver(bench: Bench, name: str, command: Sequence[str]) -> Iterator[Process]:
    with Guard() as guard, driver(name, command, bench.folder, guard) as (process, said):
        bench.versions.update({f"{name}: {key}": str(value) for key, value in said.items() if key != "ready"})
        yield process


def _steps(steps_ms: Mapping[str, Sequence[float]]) -> Figures:
    if not steps_ms:
        return {}
    return {
        "update_ms": median(time for step in UPDATES for time in steps_ms[step]),
        **{f"step_ms.{step}": median(times) for step, times in steps_ms.items()},
    }


def _waits(answer: Mapping[str, Any], learners: int) -> Figures:
    """Return the milliseconds that a learner waits for the peer's calls."""
    waits_ms = list(chain(*answer.get("steps_ms", {}).values()))
    return {"waits_ms_per_learner": sum(waits_ms) / learners} if waits_ms else {}
