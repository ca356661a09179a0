"""The procrastinate application and its tasks: coroutines that share the worker's pool of connections.

What a task writes and the jobs that follow from it are one transaction, on one connection. The jobs of a
transaction are deferred with one statement.
"""

import os
from collections.abc import Sequence

from procrastinate import App, PsycopgConnector, RetryStrategy
from procrastinate.jobs import Job
from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool

from benchmarks.alternatives import rules
from benchmarks.alternatives.services import Services

DATABASE_URL = os.environ["DATABASE_URL"]
CONCURRENCY = 10
"""The number of jobs that run at the same time."""
RETRY = RetryStrategy(max_attempts=20, exponential_wait=2)


async def _commit_at_once(connection: AsyncConnection) -> None:
    """Have each statement of procrastinate committed at once. That saves a BEGIN and a COMMIT for each."""
    await connection.set_autocommit(True)


app = App(connector=PsycopgConnector(conninfo=DATABASE_URL, kwargs={"autocommit": True}))
pool = AsyncConnectionPool(
    DATABASE_URL, min_size=CONCURRENCY, max_size=CONCURRENCY, configure=_commit_at_once, open=False
)
"""The worker's pool, which procrastinate uses, too. The driver has a pool of the connector's own."""
services = Services()


@app.task(name="change", retry=RETRY)  # type: ignore[untyped-decorator]
async def change(user_id: int, exam_id: str, to_status: str | None) -> None:
    """Carry out a command: create the attempt, or change its status."""
    async with pool.connection() as connection, connection.transaction():
        changed = await connection.execute(*rules.statement(user_id, exam_id, to_status))
        if to_status is not None and not changed.rowcount:
            raise rules.TooEarlyError(user_id, exam_id, to_status)
        await _defer(connection, _owed(user_id, exam_id, to_status))


@app.task(name="decline_siblings", retry=RETRY)  # type: ignore[untyped-decorator]
async def decline_siblings(user_id: int, exam_id: str, to_status: str) -> None:
    """Decline the learner's attempts at the course's other exams. Missing attempts are created first."""
    values = {"user_id": user_id, "exam_id": exam_id}
    async with pool.connection() as connection, connection.transaction():
        await connection.execute(rules.CREATE_SIBLINGS, values)
        siblings = await (await connection.execute(rules.DECLINE_SIBLINGS, values)).fetchall()
        await _defer(connection, [_credit(user_id, sibling, to_status) for (sibling,) in siblings])


@app.task(name="set_credit", retry=RETRY)  # type: ignore[untyped-decorator]
async def set_credit(user_id: int, exam_id: str, to_status: str) -> None:
    """Call the credit service."""
    services.set_credit(user_id, exam_id, rules.CREDIT_OF[to_status])


@app.task(name="send_mail", retry=RETRY)  # type: ignore[untyped-decorator]
async def send_mail(user_id: int, exam_id: str, to_status: str) -> None:
    """Send a mail to the learner."""
    services.send_mail(user_id, exam_id, to_status)


def lock_of(user_id: int) -> str:
    """Return the lock of everything that changes a learner."""
    return f"learner {user_id}"


def _owed(user_id: int, exam_id: str, to_status: str | None) -> Sequence[Job]:
    jobs = []
    if to_status in rules.CREDIT_OF:
        jobs.append(_credit(user_id, exam_id, to_status))
    if to_status in rules.MAILED:
        mail = send_mail.configure(lock=f"mail {user_id}")
        jobs.append(mail.make_new_job(user_id=user_id, exam_id=exam_id, to_status=to_status))
    if to_status == "declined":
        cascade = decline_siblings.configure(lock=lock_of(user_id))
        jobs.append(cascade.make_new_job(user_id=user_id, exam_id=exam_id, to_status=to_status))
    return jobs


def _credit(user_id: int, exam_id: str, to_status: str) -> Job:
    credit = set_credit.configure(lock=f"credit {user_id} {exam_id}")
    job: Job = credit.make_new_job(user_id=user_id, exam_id=exam_id, to_status=to_status)
    return job


async def _defer(connection: AsyncConnection, jobs: Sequence[Job]) -> None:
    if jobs:
        await app.job_manager.batch_defer_jobs_async(list(jobs), connection=connection)
