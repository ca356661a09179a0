"""The floor: the rows of our commands stage, written by hand with psycopg2. No broker, no decisions, no reads.

It knows beforehand which rows each command means: they are made outside the clock, as Python values. Within it are
the binding of the values and the statements. Every commit is one round trip. Tried and slower: `execute_values`
for each table, one statement of many CTEs, COPY, and the same statements without PREPARE.

    python -m benchmarks.floor --database-url postgresql+psycopg2://… --commit-every 1|100

The database must have our schema, and nobody else may own its shard 0.
"""

import argparse
import hashlib
import json
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Self
from uuid import uuid4

import psycopg2
from psycopg2.extensions import connection as Connection  # noqa: N812 - it is a class
from psycopg2.extras import execute_values
from sqlalchemy.engine import make_url

from benchmarks.workload import EXAMS, FIRST_WAVE, SECOND_WAVE, Step, steps
from db.ids import stamp

COURSE_OF = {exam: course for course, exams in EXAMS.items() for exam in exams}
CREDIT_OF = {"submitted": "submitted", "verified": "satisfied", "declined": "failed"}
MAILED = ("submitted", "verified")

Row = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Attempt:
    """An attempt as a command leaves it."""

    id: str
    exam_id: str
    user_id: str
    status: str = "created"
    proctored: bool = True
    started_at: str | None = None
    completed_at: str | None = None
    credit_owed: bool = False
    version: int = 1

    def moved(self, status: str, at: str) -> Self:
        """The same attempt, one transition later."""
        return type(self)(
            self.id,
            self.exam_id,
            self.user_id,
            status,
            self.proctored and status != "declined",
            at if status == "started" else self.started_at,
            at if status == "submitted" else self.completed_at,
            self.credit_owed or status in CREDIT_OF,
            self.version + 1,
        )

    def changing(self) -> Row:
        """The columns that an update writes."""
        return (
            self.id,
            self.status,
            self.proctored,
            self.started_at,
            self.completed_at,
            self.credit_owed,
            self.version,
        )


@dataclass(frozen=True, slots=True)
class Written:
    """What one command writes."""

    inbox: Row
    attempt: Attempt
    created_at: str | None
    """Of the attempt; None when it is there already."""
    transition: Row
    effects: list[Row]


@dataclass(frozen=True, slots=True)
class Batch:
    """What one commit writes: rows by prepared statement, in the order in which the statements run."""

    rows: dict[str, list[Row]]

    @classmethod
    def of(cls, commands: Sequence[Written]) -> Self:
        """Of an attempt that comes more than once, the last state is written, and every transition."""
        last = {command.attempt.id: command.attempt for command in commands}
        created = {c.attempt.id: c.created_at for c in commands if c.created_at is not None}
        rows = {
            "inbox": [command.inbox for command in commands],
            "created": [
                (a.exam_id, a.user_id, created[i], *a.changing()) for i, a in last.items() if i in created
            ],
            "changed": [attempt.changing() for i, attempt in last.items() if i not in created],
            "transitions": [command.transition for command in commands],
            "effects": [effect for command in commands for effect in command.effects],
        }
        return cls({name: of_table for name, of_table in rows.items() if of_table})


# --- the rows ------------------------------------------------------------------------------------------------


def written(learners: Iterable[int]) -> Iterator[Written]:
    """What every command of these learners writes, in order."""
    learners = list(learners)
    attempts: dict[tuple[int, str], Attempt] = {}
    for wave in (FIRST_WAVE, SECOND_WAVE):
        for step in steps(learners, wave):
            before = attempts.get((step.learner, step.exam))
            command = _written(step, before)
            attempts[step.learner, step.exam] = command.attempt
            yield command


def _written(step: Step, before: Attempt | None) -> Written:
    moment, command_id, user_id = stamp(), str(uuid4()), str(step.learner)
    at, ids = moment.at.isoformat(), (str(one) for one in moment.ids())
    if before is None or step.to_status is None:
        attempt, kind, created_at = Attempt(next(ids), step.exam, user_id), "create", at
    else:
        attempt, kind, created_at = before.moved(step.to_status, at), "update-status", None
    command_type = f"exam.attempt.{kind}.v1"
    fingerprint = hashlib.sha256(f"{command_type} {step}".encode()).hexdigest()
    return Written(
        (command_id, command_type, rf"\x{fingerprint}", at),
        attempt,
        created_at,
        (next(ids), attempt.id, attempt.version, before and before.status, attempt.status, at, command_id),
        [(next(ids), *effect, command_id) for effect in _effects(attempt)] if before else [],
    )


def _effects(attempt: Attempt) -> Iterator[Row]:
    course, content = COURSE_OF[attempt.exam_id], f"content-{attempt.exam_id}"

    def effect(kind: str, status: str | None, target: str | None = None) -> Row:
        payload = {
            "exam_id": attempt.exam_id,
            "user_id": attempt.user_id,
            "course_id": course,
            "content_id": content,
            "status": status,
            "requested_by": None,
        }
        return kind, attempt.id, attempt.user_id, target, json.dumps(payload)

    if attempt.status in CREDIT_OF:
        target = f"credit:{attempt.user_id}/{course}/{content}"
        yield effect("set_credit_status", CREDIT_OF[attempt.status], target)
    if attempt.status == "declined":
        yield effect("cascade_decline", None)
    if attempt.status in MAILED:
        yield effect("send_status_email", attempt.status)


# --- the statements ------------------------------------------------------------------------------------------

TYPES = {
    "inbox": "text text bytea timestamptz",
    "created": "text text timestamptz uuid text bool timestamptz timestamptz bool int",
    "changed": "uuid text bool timestamptz timestamptz bool int",
    "transitions": "uuid uuid int text text timestamptz text",
    "effects": "uuid text uuid text text jsonb text",
}
"""The types of the values of each prepared statement."""

ONE_ROW = {
    "inbox": """
        WITH entry AS (
            INSERT INTO inbox (source, command_id, type, fingerprint) VALUES ('/bench', $1, $2, $3) RETURNING id
        )
        INSERT INTO outcomes (inbox_id, outcome, handled_at) SELECT id, 'applied', $4 FROM entry""",
    "created": """
        INSERT INTO attempts (exam_id, user_id, created_at, id, status, taking_as_proctored, started_at,
            completed_at, credit_owed, version, is_sample_attempt)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, false)""",
    "changed": """
        UPDATE attempts SET status = $2, taking_as_proctored = $3, started_at = $4, completed_at = $5,
            credit_owed = $6, version = $7
        WHERE id = $1""",
    "transitions": """
        INSERT INTO transitions (id, attempt_id, version, from_status, to_status, at, command_id, source)
        VALUES ($1, $2, $3, $4, $5, $6, $7, '/bench')""",
    "effects": """
        INSERT INTO effects (id, kind, attempt_id, user_id, target, payload, command_id, source, state)
        VALUES ($1, $2, $3, $4, $5, $6, $7, '/bench', 'pending')""",
}
"""Statements that take a row."""

MANY_ROWS = {
    "inbox": """
        WITH entries AS (
            INSERT INTO inbox (command_id, type, fingerprint, source)
            SELECT *, '/bench' FROM unnest($1, $2, $3)
            RETURNING id, command_id
        )
        INSERT INTO outcomes (inbox_id, outcome, handled_at)
        SELECT id, 'applied', handled_at
        FROM entries JOIN unnest($1, $4) v (command_id, handled_at) USING (command_id)""",
    "created": """
        INSERT INTO attempts (exam_id, user_id, created_at, id, status, taking_as_proctored, started_at,
            completed_at, credit_owed, version, is_sample_attempt)
        SELECT *, false FROM unnest($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)""",
    "changed": """
        UPDATE attempts SET status = v.status, taking_as_proctored = v.proctored, started_at = v.started_at,
            completed_at = v.completed_at, credit_owed = v.credit_owed, version = v.version
        FROM unnest($1, $2, $3, $4, $5, $6, $7)
            v (id, status, proctored, started_at, completed_at, credit_owed, version)
        WHERE attempts.id = v.id""",
    "transitions": """
        INSERT INTO transitions (id, attempt_id, version, from_status, to_status, at, command_id, source)
        SELECT *, '/bench' FROM unnest($1, $2, $3, $4, $5, $6, $7)""",
    "effects": """
        INSERT INTO effects (id, kind, attempt_id, user_id, target, payload, command_id, source, state)
        SELECT *, '/bench', 'pending' FROM unnest($1, $2, $3, $4, $5, $6, $7)""",
}
"""Statements that take a column of values for each parameter."""

RENEW = """
    UPDATE shards SET lease_until = clock_timestamp() + interval '5 s'
    WHERE shard = 0 AND owner = 'floor' AND epoch = $1"""


@dataclass(frozen=True, slots=True)
class Floor:
    """A connection with its prepared statements."""

    connection: Connection
    one_row: bool
    """Whether a statement takes a row, which is faster while there are few, or columns."""

    def prepare(self) -> None:
        """Prepare the statements, once for each connection."""
        statements, array = (ONE_ROW, "") if self.one_row else (MANY_ROWS, "[]")
        with self.connection.cursor() as cursor:
            cursor.execute(f"PREPARE renew (bigint) AS {RENEW}")
            for name, types in TYPES.items():
                of_values = ", ".join(one + array for one in types.split())
                cursor.execute(f"PREPARE {name} ({of_values}) AS {statements[name]}")

    def commit(self, batch: Batch, epoch: int) -> None:
        """Write a batch: one transaction, one round trip."""
        sql = ["BEGIN", "EXECUTE renew (%s)"]
        values: list[Any] = [epoch]
        for name, rows in batch.rows.items():
            for row in rows if self.one_row else [map(_array, zip(*rows, strict=True))]:
                before = len(values)
                values += row
                sql.append(f"EXECUTE {name} ({', '.join(['%s'] * (len(values) - before))})")
        if "effects" in batch.rows:
            sql.append("NOTIFY invigilator_effects")
        sql.append("COMMIT")
        with self.connection.cursor() as cursor:
            cursor.execute("; ".join(sql), values)


def _array(values: Sequence[Any]) -> str:
    """A column as PostgreSQL reads it. Cheaper, here and there, than psycopg2's ARRAY[…]."""
    texts = ["NULL" if value is None else str(value) for value in values]
    if texts[0][0] in "{\\":  # JSON, or bytes
        texts = ['"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"' for text in texts]
    return "{" + ",".join(texts) + "}"


# --- the driver ----------------------------------------------------------------------------------------------


def run(floor: Floor, commit_every: int, first: int, learners: int) -> dict[str, float]:
    """Write everything that so many learners mean. Their rows are made before the clock starts."""
    numbers = range(first, first + learners)
    epoch = _take_shard(floor.connection)
    _insert_learners(floor.connection, numbers)
    commands = list(written(numbers))
    batches = [Batch.of(commands[n : n + commit_every]) for n in range(0, len(commands), commit_every)]
    cpu_before, before = time.process_time(), time.perf_counter()
    for batch in batches:
        floor.commit(batch, epoch)
    seconds, cpu_seconds = time.perf_counter() - before, time.process_time() - cpu_before
    _release_shard(floor.connection)
    return {
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "commands": len(commands),
        "transitions": sum(len(batch.rows["transitions"]) for batch in batches),
    }


def _connect(database_url: str) -> Connection:
    url = make_url(database_url).set(drivername="postgresql").render_as_string(hide_password=False)
    # A plan made while a table is nearly empty is kept, and reads all of it when it has grown.
    connection = psycopg2.connect(url, options="-c enable_seqscan=off", application_name="floor")
    connection.autocommit = True  # BEGIN and COMMIT are sent with the statements
    return connection


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


def _answer(answer: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


def main() -> None:
    """Serve the harness: a line of JSON in, a line of JSON out, until the input ends."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.floor")
    parser.add_argument("--database-url", required=True)
    parser.add_argument("--commit-every", required=True, type=int, metavar="COMMANDS")
    options = parser.parse_args()
    connection = _connect(options.database_url)
    _insert_exams(connection)
    floor = Floor(connection, one_row=options.commit_every == 1)
    floor.prepare()
    _answer({"ready": True, "psycopg2": version("psycopg2-binary"), "postgresql": connection.server_version})
    for line in sys.stdin:
        request = json.loads(line)
        _answer(run(floor, options.commit_every, request["first"], request["learners"]))
    connection.close()


if __name__ == "__main__":
    main()
