"""The driver of the obvious alternative: publishes the workload to a Celery worker that it starts.

    python -m benchmarks.alternative.run --database-url postgresql+psycopg2://… --broker-url redis://…|amqp://…

The steps of a wave are published without waiting for each other, everybody's first step first: with tens of
learners the queue's order then holds (tried: of 20 or 200 learners no task had to retry), and no worker ever waits
for the last tasks of a step. A task that is too early all the same retries.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, func, select, text
from sqlalchemy.dialects.postgresql import insert

from benchmarks import driver_protocol
from benchmarks.alternative.models import SCHEMA, Attempt, Base, Exam, History
from benchmarks.workload import EXAMS, FIRST_WAVE, SECOND_WAVE, Step, steps

FIRST_EFFECTS, SECOND_EFFECTS = 5, 2
"""The credits and mails of a learner in each wave. When the last of them has run, the wave is done."""
THREADS = 2
"""One thread for each CPU of our machine, because the services cost no waiting."""
START_S, STALL_S, LOOK_S = 60.0, 60.0, 0.005


@dataclass(slots=True)
class Run:
    """The work of one request."""

    first: int
    learners: int
    publish: Callable[[Step], None]
    tally: Path
    publish_ms: list[float] = field(default_factory=list)

    def wave(self, wave: tuple[tuple[str, str | None], ...], effects: int) -> None:
        """Publish a wave and wait until its last effect has run."""
        done = self.tally.stat().st_size + effects * self.learners
        for step in steps(range(self.first, self.first + self.learners), wave):
            before = time.perf_counter()
            self.publish(step)
            self.publish_ms.append((time.perf_counter() - before) * 1000)
        _wait(lambda: self.tally.stat().st_size, done)


def _publish(step: Step) -> None:
    from benchmarks.alternative import app

    if step.to_status is None:
        app.create_attempt.delay(step.learner, step.exam)
    else:
        app.update_status.delay(step.learner, step.exam, step.to_status)


def _wait(count: Callable[[], int], wanted: int) -> None:
    """Wait until the count reaches `wanted`.

    Raises:
        TimeoutError: the count has not changed for a minute.
    """
    before, changed_at = -1, time.monotonic()
    while (now := count()) < wanted:
        if now != before:
            before, changed_at = now, time.monotonic()
        elif time.monotonic() - changed_at > STALL_S:
            raise TimeoutError(f"{now} of {wanted} effects have run, and no more do")
        time.sleep(LOOK_S)


def run(engine: Engine, tally: Path, first: int, learners: int) -> dict[str, Any]:
    """Do the work of `learners` learners, and return what it took."""
    one = Run(first, learners, _publish, tally)
    tallied, before = tally.stat().st_size, time.perf_counter()
    one.wave(FIRST_WAVE, FIRST_EFFECTS)
    one.wave(SECOND_WAVE, SECOND_EFFECTS)
    seconds = time.perf_counter() - before
    effects = tally.read_bytes()[tallied:]
    return {
        "seconds": seconds,
        "transitions": _transitions(engine, first, learners),
        "credits": effects.count(b"c"),
        "mails": effects.count(b"m"),
        "publish_ms": one.publish_ms,
    }


def _transitions(engine: Engine, first: int, learners: int) -> int:
    of_learners = Attempt.user_id.between(first, first + learners - 1)
    with engine.connect() as connection:
        counted = connection.scalar(select(func.count(History.id)).join(Attempt).where(of_learners))
    return counted or 0


def _create_tables(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text(f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}"))
    Base.metadata.create_all(engine)
    with engine.begin() as connection:
        connection.execute(
            insert(Exam).on_conflict_do_nothing(),
            [{"id": exam, "course_id": course} for course, exams in EXAMS.items() for exam in exams],
        )


@contextmanager
def _worker() -> Iterator[None]:
    """Run a Celery worker, and wait until it is ready.

    Its options differ from Celery's defaults where that is cheaper: threads, which took less CPU than prefork
    on both brokers, no gossip, no mingle, and few log lines.
    """
    from benchmarks.alternative.app import app

    options = ["--pool", "threads", "--concurrency", str(THREADS), "--without-gossip", "--without-mingle"]
    command = [sys.executable, "-m", "celery", "-A", "benchmarks.alternative.app", "worker", *options]
    process = subprocess.Popen(
        [*command, "--loglevel", "WARNING"], stdin=subprocess.DEVNULL, stdout=sys.stderr
    )
    try:
        deadline = time.monotonic() + START_S
        while not app.control.ping(timeout=0.5):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("the Celery worker did not start")
        yield
    finally:
        process.terminate()
        process.wait()


def _serve(tally: Path) -> None:
    from benchmarks.alternative.app import engine

    _create_tables(engine)
    with _worker():
        driver_protocol.write(
            {"ready": True} | {name: version(name) for name in ("celery", "kombu", "sqlalchemy")}
        )
        for request in driver_protocol.requests():
            driver_protocol.write(run(engine, tally, request["first"], request["learners"]))


def main() -> None:
    """Serve the harness: a line of JSON in, a line of JSON out, until the input ends."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.alternative.run")
    parser.add_argument("--database-url", required=True)
    parser.add_argument("--broker-url", required=True)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="alternative-") as folder:
        tally = Path(folder, "tally")
        # The application reads these when it is imported, here and in the worker.
        os.environ |= {
            "DATABASE_URL": options.database_url,
            "BROKER_URL": options.broker_url,
            "TALLY_FILE": str(tally),
        }
        _serve(tally)


if __name__ == "__main__":
    main()
