"""Our system as a contestant: runs the Procfile's processes and measures them from outside."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.engines import Broker, Database, connect
from benchmarks.running import BenchmarkError, Process, plain_environment
from benchmarks.system import POLL_S, Result, System
from benchmarks.workload import DECLINED, EXAMS, VERIFIED
from db.migrate import upgrade
from invigilator.local.procfile import read_procfile

TEMPLATE = "ours"

_SEED = """
INSERT INTO courses (course_id, name) VALUES ('{verified}', 'The verified one'), ('{declined}', 'The declined one');
INSERT INTO exams (exam_id, course_id, content_id, exam_name, is_proctored, is_practice_exam, is_active)
VALUES {exams}
"""
LEARNERS = """
INSERT INTO learners (user_id, username, email, full_name)
SELECT n, 'learner' || n, 'learner' || n || '@example.org', 'Learner ' || n
FROM generate_series(%s, %s - 1) AS n
"""
# Cleans a database that is used again: releases the shards of killed owners and deletes unfinished effects.
_TIDY = """
UPDATE shards SET owner = NULL, lease_until = NULL;
DELETE FROM effects WHERE state IN ('pending', 'running', 'superseded')
"""
_RESULTS = """
WITH attempts AS (SELECT id, exam_id FROM attempts WHERE user_id = ANY(%(learners)s)), found AS (
    SELECT 'history' AS what, exam_id, string_agg(to_status, ' ' ORDER BY version) AS list
    FROM attempts JOIN transitions ON attempt_id = attempts.id GROUP BY attempts.id, exam_id
    UNION ALL
    SELECT CASE kind WHEN 'set_credit_status' THEN 'credit' ELSE 'mail' END, exam_id,
        string_agg(payload->>'status', ' ' ORDER BY done_at)
    FROM attempts JOIN effects ON attempt_id = attempts.id
    WHERE state = 'done' AND kind IN ('set_credit_status', 'send_status_email') GROUP BY attempts.id, exam_id, kind
)
SELECT what, exam_id, list, count(*) FROM found GROUP BY what, exam_id, list
"""
_ENDS = """
WITH last AS (
    SELECT source, command_id, max(pg_xact_commit_timestamp(xmin)) AS at FROM effects GROUP BY 1, 2
)
SELECT command_id, extract(epoch FROM pg_xact_commit_timestamp(outcomes.xmin))::float8,
    extract(epoch FROM last.at)::float8
FROM outcomes JOIN inbox ON inbox.id = inbox_id LEFT JOIN last USING (source, command_id) WHERE inbox_id > %s
"""
_LISTENING = """
SELECT count(*) FROM pg_stat_activity
WHERE datname = current_database() AND query LIKE 'LISTEN invigilator_effects%'
"""
_UNFINISHED = """
SELECT state, count(*) FROM effects
WHERE state IN ('pending', 'running', 'failed', 'superseded', 'cancelled') GROUP BY 1
"""
_SERVED = "SELECT count(*) FROM subscribers WHERE owner IS NOT NULL"
_UNTOLD = """
SELECT count(*) FROM (
    SELECT FROM events, subscribers
    WHERE events.position IS NULL OR events.position > subscribers.position
    LIMIT 1
) AS untold
"""
_OWED = "SELECT count(*) FROM (SELECT FROM effects WHERE state IN ('pending', 'running') LIMIT 1) AS owed"


def prepare(url: str) -> None:
    """Create the schema, the courses and the exams."""
    upgrade(url)
    exams = ", ".join(
        f"('{exam}', '{course}', 'block-{exam}', 'Exam {exam}', true, false, true)"
        for course, names in EXAMS.items()
        for exam in names
    )
    connection = connect(url)
    with connection.cursor() as cursor:
        cursor.execute(_SEED.format(verified=VERIFIED, declined=DECLINED, exams=exams))
    connection.close()


class Ours(System):
    """Our system. Leaving the `with` block ends its processes.

    Parameters:
        database: the database server.
        url: the URL of a prepared database of that server.
        broker: the broker.
        folder: receives the logs of the processes.
        settings: the settings, without the prefix.
        numbers: which processes `start_all` starts, and how many. The default is one of each of `EVERYBODY`.
        tidies: whether unfinished effects of an earlier measurement are deleted.
    """

    def __init__(
        self,
        database: Database,
        url: str,
        broker: Broker,
        folder: Path,
        settings: Mapping[str, object],
        numbers: Mapping[str, int] | None = None,
        *,
        tidies: bool = True,
    ) -> None:
        super().__init__(database, url, broker, folder)
        self._queues = broker
        self._settings = settings
        self._numbers = numbers or dict.fromkeys(EVERYBODY, 1)
        self._tidies = tidies
        self.shards = int(str(settings.get("COMMAND_SHARDS", 1)))

    def prepare(self) -> None:
        """Empty the broker, and clean what an earlier measurement has left in the database."""
        if self._tidies:
            self._cursor.execute(_TIDY)
        self._queues.reset(self.shards)

    # --- processes -----------------------------------------------------------------------------------------

    def start_all(self) -> None:
        """Start the processes whose numbers were given."""
        for name, number in self._numbers.items():
            self.start(name, number)

    def start(self, name: str, number: int = 1) -> None:
        """Start `number` processes of a line of the Procfile or of a small site.

        Several `commands` processes divide the shards.
        """
        command = {**read_procfile(), **SMALL_SITE}[name]
        for index in range(number):
            if name == "commands" and self.shards > 1:
                mine = range(self.shards)[index::number]
                self._launch(name, command + "".join(f" --shard {shard}" for shard in mine))
            else:
                self._launch(name, command.replace(f"{name}@%h", f"{name}{index}@%h"))

    def _launch(self, name: str, command: str) -> None:
        prefixed = {f"INVIGILATOR_{key}": str(value) for key, value in self._settings.items()}
        environment = {
            **plain_environment(),
            "INVIGILATOR_DATABASE_URL": self.url,
            "INVIGILATOR_BROKER_URL": self._queues.url,
            **prefixed,
        }
        self.launch(name, command, environment)

    @contextmanager
    def publisher(self) -> Iterator[Process]:
        """Run the LMS's publisher (`benchmarks.publish`) as a driver."""
        command = ["python", "-m", "benchmarks.publish", "--broker-url", self._queues.url]
        with self.driven([*command, "--shards", str(self.shards)]) as (process, _):
            yield process

    def wait_until_ready(self) -> None:
        """Wait until the relay listens, every shard has an owner, and the Celery workers are ready."""
        names = [process.name for process in self.processes]
        relays = names.count("relay") + names.count("work")
        taken = "SELECT count(*) FROM shards WHERE owner IS NOT NULL"
        self.wait_until(lambda: self.number(_LISTENING) >= relays, "the relay to listen")
        if "SUBSCRIPTIONS_FILE" in self._settings:
            self.wait_until(lambda: self.number(_SERVED) > 0, "the feed to be served")
        if not {"commands", "work"}.isdisjoint(names):
            self.wait_until(lambda: self.number(taken) == self.shards, "the shards to be taken")
        for process in self.processes:
            if process.name in WORKERS:
                self.wait_until(partial(_is_ready, process), f"{process.name} to be ready")

    # --- measuring -----------------------------------------------------------------------------------------

    def add_learners(self, number: int) -> None:
        """Insert learners. Their numbers are in `learners`."""
        first = self.number("SELECT count(*) FROM learners WHERE user_id ~ '^[0-9]+$'")
        self.learners = range(first, first + number)
        self._cursor.execute(LEARNERS, (first, first + number))

    def last_inbox_id(self) -> int:
        """Return the inbox id of the newest handled command."""
        return self.number("SELECT max(inbox_id) FROM outcomes")

    def handled_since(self, inbox_id: int) -> int:
        """Count the commands that were handled after the one with this inbox id."""
        return self.number("SELECT count(*) FROM outcomes WHERE inbox_id > %s", inbox_id)

    def wait_for_commands(self, commands: int, since: int, poll_s: float = POLL_S) -> None:
        """Wait until `commands` commands are handled after the one with the inbox id `since`."""

        def are_handled() -> bool:
            # Counting takes longer the more there are, so it is done only when the last one may have been handled.
            last = self.number("SELECT coalesce(max(inbox_id), 0) FROM outcomes")
            return last >= since + commands and self.handled_since(since) >= commands

        self.wait_until(are_handled, f"{commands} commands", poll_s)

    def mark(self) -> int:
        """Return the inbox id of the newest handled command."""
        return self.last_inbox_id()

    def wait_for(self, answer: Mapping[str, Any], mark: int) -> None:
        """Wait until the published commands are handled, no effect is owed, and the feed has every event."""
        self.wait_for_commands(answer["commands"], mark)
        self.wait_until(lambda: self.number(_OWED) == 0, "every effect to end")
        self.wait_until(lambda: self.number(_UNTOLD) == 0, "every event to be told")

    def ends(self, mark: int) -> Mapping[str, tuple[float, float | None]]:
        """Return by command id the commit times of its outcome and of its last effect (None if it owes none)."""
        return {command_id: (outcome, effects) for command_id, outcome, effects in self.rows(_ENDS, mark)}

    def results(self, learners: range) -> Iterable[Result]:
        """Return what these learners have.

        Raises:
            BenchmarkError: an effect has failed, or is not done.
        """
        unfinished = self.rows(_UNFINISHED)
        if unfinished:
            raise BenchmarkError(f"not all effects are done: {unfinished}")
        self._cursor.execute(_RESULTS, {"learners": [str(learner) for learner in learners]})
        return list(self._cursor.fetchall())


def _is_ready(worker: Process) -> bool:
    return b" ready." in worker.log.read_bytes()


EVERYBODY: Sequence[str] = ("commands", "relay", "effects", "mail")
SMALL_SITE = {
    "work": "invigilator work",
    "workers": "celery -A worker.app worker --hostname workers@%h --without-gossip --without-mingle",
}
"""Two processes that do everything (docs/operate.md)."""
WORKERS = ("effects", "mail", "workers")
