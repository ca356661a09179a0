"""The peer and the floor: contestants that are one driver process each, with a database of its own."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import chain
from statistics import median
from typing import Any

from benchmarks.bench import Bench, Contestant, Figures
from benchmarks.meter import Meter
from benchmarks.running import ROOT, BenchmarkError, Process, driver
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
PATIENCE_S = 900


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
    return _run(bench, FLOOR, floor_command(how, commit_every), learners, warm_learners=20)


def floor_command(how: str, commit_every: int) -> list[str]:
    """Return the command of the floor's driver, without its engines."""
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
        database(bench, name, command) as url,
        driving(bench, name, [*command, "--database-url", url]) as process,
    ):
        yield process


@contextmanager
def database(bench: Bench, name: str, command: Sequence[str]) -> Iterator[str]:
    """Yield the URL of a new database with what the driver creates before it is ready."""

    def prepare(url: str) -> None:
        if name == FLOOR:
            upgrade(url)  # the floor writes rows of our schema
        with driving(bench, name, [*command, "--database-url", url]):
            pass  # what it creates becomes part of the template

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
def driving(bench: Bench, name: str, command: Sequence[str]) -> Iterator[Process]:
    """Yield a driver that is ready."""
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
