"""The driver of the floor: reads requests and writes answers as JSON lines.

    python -m benchmarks.floor --database-url postgresql+psycopg2://… --commit-every 1|100 --how prepared

With `--broker-url`, it writes one batch for each message that it receives (`benchmarks.floor.queues`), and
answers with the times of the commits.

The database must have our schema, and its shard 0 must have no other owner.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from importlib.metadata import version
from typing import Any

from psycopg2.extensions import connection as Connection  # noqa: N812 - it is a class
from psycopg2.extras import execute_values

from benchmarks import driver_protocol
from benchmarks.floor import queues
from benchmarks.floor.database import connect
from benchmarks.floor.rows import COURSE_OF, Batch, written
from benchmarks.floor.ways import PLAIN, PREPARED, way
from benchmarks.workload import EXAMS


def run(batches: Sequence[Batch], write: Callable[[Batch], None]) -> dict[str, Any]:
    """Write the batches one after another, and return the time, the CPU and the numbers of rows."""
    cpu_before, before = time.process_time(), time.perf_counter()
    for batch in batches:
        write(batch)
    return {
        "seconds": time.perf_counter() - before,
        "cpu_seconds": time.process_time() - cpu_before,
        "commands": sum(len(batch.rows["inbox"]) for batch in batches),
        "transitions": sum(len(batch.rows["transitions"]) for batch in batches),
    }


def run_queued(
    batches: Sequence[Batch], write: Callable[[Batch], None], queue: queues.Handmade
) -> dict[str, Any]:
    """Write one batch for each message, and return the times of the commits. A message is kept until the commit."""
    committed_at = []
    for batch in batches:
        queue.take()
        write(batch)
        committed_at.append(time.time())
        queue.done()
    return {"committed_at": committed_at}


def _batches(learners: Iterable[int], commit_every: int) -> list[Batch]:
    """Return the batches of these learners. They are built before the clock starts."""
    commands = list(written(learners))
    return [Batch.of(commands[n : n + commit_every]) for n in range(0, len(commands), commit_every)]


def _insert_exams(connection: Connection) -> None:
    with connection.cursor() as cursor:
        execute_values(
            cursor,
            "INSERT INTO courses (course_id, name) VALUES %s ON CONFLICT DO NOTHING",
            [(course, f"Course {course}") for course in EXAMS],
        )
        execute_values(
            cursor,
            """INSERT INTO exams
                (exam_id, course_id, content_id, exam_name, is_proctored, is_practice_exam, is_active)
            VALUES %s ON CONFLICT DO NOTHING""",
            [(e, c, f"content-{e}", f"Exam {e}", True, False, True) for e, c in COURSE_OF.items()],
        )
        cursor.execute("INSERT INTO shards (shard, epoch) VALUES (0, 0) ON CONFLICT DO NOTHING")


def _insert_learners(connection: Connection, learners: Iterable[int]) -> None:
    with connection.cursor() as cursor:
        execute_values(
            cursor,
            "INSERT INTO learners (user_id, username, email) VALUES %s ON CONFLICT DO NOTHING",
            [(str(n), f"learner-{n}", f"learner-{n}@example.org") for n in learners],
            page_size=1000,
        )


def _take_shard(connection: Connection) -> int:
    with connection.cursor() as cursor:
        cursor.execute(
            """UPDATE shards SET owner = 'floor', epoch = epoch + 1, lease_until = clock_timestamp()
            WHERE shard = 0 AND (owner IS NULL OR owner = 'floor' OR lease_until < clock_timestamp())
            RETURNING epoch"""
        )
        row = cursor.fetchone()
    if row is None:
        sys.exit("shard 0 of this database has another owner")
    return int(row[0])


def _release_shard(connection: Connection) -> None:
    with connection.cursor() as cursor:
        cursor.execute("UPDATE shards SET owner = NULL, lease_until = NULL WHERE owner = 'floor'")


def main() -> None:
    """Serve the harness: a line of JSON in, a line of JSON out, until the input ends."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.floor")
    parser.add_argument("--database-url", required=True)
    parser.add_argument("--commit-every", required=True, type=int, metavar="COMMANDS")
    parser.add_argument("--how", choices=[*PLAIN, PREPARED], required=True)
    parser.add_argument("--broker-url")
    options = parser.parse_args()
    connection = connect(options.database_url)
    _insert_exams(connection)
    floor = way(options.how, connection, options.commit_every)
    driver_protocol.write(
        {"ready": True, "psycopg2": version("psycopg2-binary"), "postgresql": connection.server_version}
    )
    queue = queues.connect(options.broker_url) if options.broker_url else None
    for request in driver_protocol.requests():
        learners = range(request["first"], request["first"] + request["learners"])
        batches = _batches(learners, options.commit_every)
        _insert_learners(connection, learners)
        write = partial(floor.commit, epoch=_take_shard(connection))
        driver_protocol.write(run(batches, write) if queue is None else run_queued(batches, write, queue))
        _release_shard(connection)
    connection.close()


if __name__ == "__main__":
    main()
