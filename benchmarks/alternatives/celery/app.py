"""The Celery application and its tasks, with the rules that the workload needs.

Settings that are not set here have Celery's defaults. So messages are acknowledged before the task runs
(`acks_late` is off), because these tasks would send a mail twice if they ran twice. Publishing to RabbitMQ does
not wait for a confirmation, which is faster.
"""

import os
from typing import Any

from celery import Celery
from sqlalchemy import create_engine, select
from sqlalchemy.orm import Session, sessionmaker

from benchmarks.alternatives.celery.models import Attempt, Exam, History, now
from benchmarks.alternatives.rules import BEFORE, CREDIT_OF, MAILED
from benchmarks.alternatives.services import Services

QUEUE = "application"

app = Celery("application", broker=os.environ["BROKER_URL"])
app.conf.update(
    task_default_queue=QUEUE,
    task_ignore_result=True,
    broker_connection_retry_on_startup=True,
)

# The pool is large enough for every thread to keep a connection.
engine = create_engine(os.environ["DATABASE_URL"], pool_size=20)
open_session = sessionmaker(engine)

services = Services()


@app.task  # type: ignore[untyped-decorator]
def create_attempt(user_id: int, exam_id: str) -> None:
    """Create a proctored attempt."""
    with open_session.begin() as session:
        _create(session, user_id, exam_id, proctored=True)


@app.task(bind=True, max_retries=20)  # type: ignore[untyped-decorator]
def update_status(task: Any, user_id: int, exam_id: str, to_status: str) -> None:
    """Change the status of an attempt, then queue its effects."""
    with open_session.begin() as session:
        attempt = _find(session, user_id, exam_id)
        early = attempt is None or attempt.status != BEFORE[to_status]
        if attempt is not None and not early:
            _change(session, attempt, to_status)
    if early:
        raise task.retry(countdown=0.1)
    if to_status in CREDIT_OF:
        set_credit.delay(user_id, exam_id, CREDIT_OF[to_status])
    if to_status in MAILED:
        send_mail.delay(user_id, exam_id, to_status)
    if to_status == "declined":
        decline_siblings.delay(user_id, exam_id)


@app.task  # type: ignore[untyped-decorator]
def decline_siblings(user_id: int, exam_id: str) -> None:
    """Decline the learner's attempts at the course's other exams. Missing attempts are created first."""
    with open_session.begin() as session:
        declined = session.get_one(Exam, exam_id)
        others = select(Exam).where(Exam.course_id == declined.course_id, Exam.id != exam_id)
        siblings = list(session.scalars(others.order_by(Exam.id)))
        found = select(Attempt).where(
            Attempt.user_id == user_id, Attempt.exam_id.in_([exam.id for exam in siblings])
        )
        attempts = {attempt.exam_id: attempt for attempt in session.scalars(found.with_for_update())}
        for exam in siblings:
            if exam.id not in attempts:
                attempts[exam.id] = _create(session, user_id, exam.id, proctored=False)
            _change(session, attempts[exam.id], "declined")
        exam_ids = list(attempts)
    for sibling_id in exam_ids:
        set_credit.delay(user_id, sibling_id, CREDIT_OF["declined"])


@app.task  # type: ignore[untyped-decorator]
def set_credit(user_id: int, exam_id: str, status: str) -> None:
    """Call the credit service."""
    services.set_credit(user_id, exam_id, status)


@app.task  # type: ignore[untyped-decorator]
def send_mail(user_id: int, exam_id: str, status: str) -> None:
    """Send a mail to the learner."""
    services.send_mail(user_id, exam_id, status)


def _find(session: Session, user_id: int, exam_id: str) -> Attempt | None:
    wanted = select(Attempt).where(Attempt.user_id == user_id, Attempt.exam_id == exam_id)
    return session.scalars(wanted.with_for_update()).one_or_none()


def _create(session: Session, user_id: int, exam_id: str, *, proctored: bool) -> Attempt:
    attempt = Attempt(user_id=user_id, exam_id=exam_id, status="created", taking_as_proctored=proctored)
    session.add(History(attempt=attempt, from_status=None, to_status="created"))
    return attempt


def _change(session: Session, attempt: Attempt, to_status: str) -> None:
    session.add(History(attempt=attempt, from_status=attempt.status, to_status=to_status))
    attempt.status = to_status
    if to_status == "started":
        attempt.started_at = now()
    elif to_status == "submitted":
        attempt.completed_at = now()
    elif to_status == "declined":
        attempt.taking_as_proctored = False
