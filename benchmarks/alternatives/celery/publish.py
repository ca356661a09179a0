"""The driver of plain Celery: queues a task for each command.

With tens of learners the queue's order holds (tried: of 20 or 200 learners no task had to retry), because the steps
of a wave are published everybody's first step first. A task that is too early all the same retries.
"""

from importlib.metadata import version

from benchmarks import publishing
from benchmarks.alternatives.celery import app
from benchmarks.workload import Step

PACKAGES = ("celery", "kombu", "sqlalchemy")


def publish(step: Step) -> str:
    """Queue the task of a command. Return its id."""
    if step.to_status is None:
        return str(app.create_attempt.delay(step.learner, step.exam).id)
    return str(app.update_status.delay(step.learner, step.exam, step.to_status).id)


if __name__ == "__main__":
    publishing.serve(publish, {name: version(name) for name in PACKAGES})
