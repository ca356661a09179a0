"""The contestants that run `benchmarks.alternatives`: plain Celery, procrastinate and DBOS.

Each has one worker process and one driver that plays the LMS. procrastinate and DBOS have environments of their own
(`make alternatives`), and PostgreSQL for a queue.
"""

import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from subprocess import DEVNULL, run
from typing import Any

from benchmarks.alternatives.rules import TABLES
from benchmarks.bench import Bench
from benchmarks.engines import Broker, connect, libpq_url
from benchmarks.running import ROOT, BenchmarkError, Process, plain_environment
from benchmarks.system import Result, System

FOLDER = ROOT / "benchmarks" / "alternatives"
PACKAGE = "benchmarks.alternatives"
TAIL = 4096
"""Bytes of the services' file that are read at once. Larger than any call."""

_HISTORY = """
SELECT 'history', exam_id, list, count(*) FROM (
    SELECT exam_id, string_agg(to_status, ' ' ORDER BY history.id) AS list
    FROM application.attempts JOIN application.history ON attempt_id = attempts.id
    WHERE user_id BETWEEN %s AND %s GROUP BY attempts.id, exam_id
) AS found GROUP BY exam_id, list
"""


@dataclass(frozen=True, slots=True)
class Alternative:
    """One of the alternatives.

    Parameters:
        name: the name of its folder. Its worker's CPU is counted under it.
        title: the name of the contestant.
        worker: the arguments of Python that run its worker.
        owed: counts what is not finished; None where the database does not know.
        ends: gives for each command its id and the Unix times of the commits of its transition and of its last
            credit or mail (None if it owes none); None where the database does not know.
    """

    name: str
    title: str
    worker: str
    owed: str | None = None
    ends: str | None = None

    @property
    def python(self) -> Path:
        """The Python of its environment."""
        own = FOLDER / self.name / ".venv" / "bin" / "python"
        return own if (FOLDER / self.name / "constraints.txt").exists() else Path(sys.executable)

    @property
    def is_installed(self) -> bool:
        """Return whether its environment exists."""
        return self.python.exists()

    def prepare(self, url: str) -> None:
        """Create the tables of the application, and of the library."""
        connection = connect(url)
        with connection.cursor() as cursor:
            cursor.execute(TABLES)
        connection.close()
        if self.owed is not None:
            command = [str(self.python), "-m", f"{PACKAGE}.{self.name}.worker", "--prepare"]
            environment = plain_environment() | {"DATABASE_URL": libpq_url(url), "SERVICES_FILE": os.devnull}
            run(command, cwd=ROOT, env=environment, stdin=DEVNULL, stdout=sys.stderr, check=True)


CELERY = Alternative(
    "celery",
    "plain Celery",
    # Celery's defaults but for threads, which took less CPU than prefork on both brokers, no gossip, no mingle, and
    # few log lines. There is one thread for each CPU of our machine, because the services cost no waiting.
    f"-m celery -A {PACKAGE}.celery.app worker --pool threads --concurrency 2 --without-gossip --without-mingle"
    " --loglevel WARNING",
)
PROCRASTINATE = Alternative(
    "procrastinate",
    "procrastinate",
    f"-m {PACKAGE}.procrastinate.worker",
    owed="SELECT count(*) FROM procrastinate_jobs WHERE status IN ('todo', 'doing')",
    ends="""
WITH jobs AS (
    SELECT id, task_name, (args->>'user_id')::integer AS user_id, args->>'exam_id' AS exam_id,
        args->>'to_status' AS to_status, extract(epoch FROM pg_xact_commit_timestamp(xmin))::float8 AS done
    FROM procrastinate_jobs WHERE status = 'succeeded'
), last AS (
    SELECT user_id, to_status, max(done) AS at
    FROM jobs WHERE task_name IN ('set_credit', 'send_mail') GROUP BY user_id, to_status
)
SELECT jobs.id::text, extract(epoch FROM pg_xact_commit_timestamp(history.xmin))::float8, last.at
FROM jobs JOIN application.attempts USING (user_id, exam_id)
JOIN application.history ON attempt_id = attempts.id
    AND history.to_status = coalesce(jobs.to_status, 'created')
LEFT JOIN last ON last.user_id = jobs.user_id AND last.to_status = jobs.to_status
WHERE task_name = 'change'
""",
)
DBOS = Alternative(
    "dbos",
    "DBOS",
    f"-m {PACKAGE}.dbos.worker",
    owed="SELECT count(*) FROM dbos.workflow_status WHERE status NOT IN ('SUCCESS', 'ERROR')",
    ends="""
WITH changed AS (
    SELECT concat_ws(' ', user_id, exam_id, CASE WHEN from_status IS NULL THEN 'None' ELSE to_status END) AS id,
        extract(epoch FROM pg_xact_commit_timestamp(history.xmin))::float8 AS at
    FROM application.attempts JOIN application.history ON attempt_id = attempts.id
), last AS (
    SELECT workflow_uuid AS id, max(extract(epoch FROM pg_xact_commit_timestamp(xmin)))::float8 AS at
    FROM dbos.operation_outputs WHERE function_name IN ('set_credit', 'send_mail') GROUP BY workflow_uuid
)
SELECT id, changed.at, last.at FROM changed LEFT JOIN last USING (id)
""",
)
ALL = (CELERY, PROCRASTINATE, DBOS)


class Application(System):
    """The small application on one of the alternatives. Leaving the `with` block ends its processes.

    Parameters:
        bench: the run.
        alternative: what runs it.
        url: the URL of a prepared database.
        broker: the broker of plain Celery, or None.
        learners: the number of its learners.
    """

    def __init__(
        self, bench: Bench, alternative: Alternative, url: str, broker: Broker | None, learners: int
    ) -> None:
        super().__init__(bench.engines.database, url, broker, bench.folder)
        self._bench = bench
        self._alternative = alternative
        self.learners = range(learners)
        self._calls = bench.folder / "services-calls"
        self._environment = {
            "DATABASE_URL": url if broker else libpq_url(url),
            "BROKER_URL": broker.url if broker else "",
            "SERVICES_FILE": str(self._calls),
        }

    def prepare(self) -> None:
        """Empty the broker and the services' file."""
        self._calls.write_bytes(b"")
        if self._broker is not None:
            self._broker.reset()

    def start_all(self) -> None:
        """Start the worker."""
        environment = plain_environment() | self._environment
        command = f"{self._alternative.python} {self._alternative.worker}"
        self.launch(self._alternative.name, command, environment)

    @contextmanager
    def publisher(self) -> Iterator[Process]:
        """Run the driver that publishes the commands."""
        command = [str(self._alternative.python), "-m", f"{PACKAGE}.{self._alternative.name}.publish"]
        with self.driven(command, self._environment) as (process, said):
            versions = {f"{self._alternative.title}: {key}": str(value) for key, value in said.items()}
            versions.pop(f"{self._alternative.title}: ready")
            self._bench.versions.update(versions)
            yield process

    def wait_until_ready(self) -> None:
        """Do nothing: the commands of the first learners wait for the worker."""

    def mark(self) -> int:
        """Return the number of calls of the services."""
        with self._calls.open("rb") as calls:
            return sum(chunk.count(b"\n") for chunk in iter(lambda: calls.read(TAIL), b""))

    def wait_for(self, answer: Mapping[str, Any], mark: int) -> None:
        """Wait until the services have got every call, and every job or workflow has ended."""
        wanted, owed = mark + answer["calls"], self._alternative.owed
        self.wait_until(lambda: self.mark() >= wanted, f"{wanted} calls of the services")
        if owed is not None:
            self.wait_until(lambda: self.number(owed) == 0, "every job to end")

    def ends(self, mark: int) -> Mapping[str, tuple[float, float | None]]:
        """Return by command id the commit times of its transition and of its last credit or mail."""
        del mark
        ends = self._alternative.ends
        if ends is None:
            raise BenchmarkError(f"{self._alternative.title} does not record when something was done")
        return {command_id: (changed, done) for command_id, changed, done in self.rows(ends)}

    def results(self, learners: range) -> Iterable[Result]:
        """Return what these learners have: the history in the tables, and the calls that the services got."""
        calls: dict[tuple[str, str, int], list[str]] = {}
        for line in self._calls.read_text().splitlines():
            what, exam, value, user_id = line.split()
            if int(user_id) in learners:
                calls.setdefault((what, exam, int(user_id)), []).append(value)
        lists = Counter((what, exam, " ".join(values)) for (what, exam, _), values in calls.items())
        return [
            *(tuple(row) for row in self.rows(_HISTORY, learners.start, learners.stop - 1)),
            *((*found, number) for found, number in lists.items()),
        ]


@contextmanager
def application(
    bench: Bench, alternative: Alternative, broker: Broker | None, learners: int
) -> Iterator[Application]:
    """Yield the small application with a fresh database. No process of it runs yet."""
    database = bench.engines.database
    with (
        database.fresh(f"application_{alternative.name}", alternative.prepare) as url,
        Application(bench, alternative, url, broker, learners) as system,
    ):
        system.checkpoint()
        yield system


def installed(alternatives: Sequence[Alternative]) -> Sequence[Alternative]:
    """Return those whose environment exists."""
    return [one for one in alternatives if one.is_installed]
