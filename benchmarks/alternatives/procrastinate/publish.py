"""The driver of procrastinate: defers a job for each command, one transaction each."""

from importlib.metadata import version

from benchmarks import publishing
from benchmarks.alternatives.procrastinate.app import app, change, lock_of
from benchmarks.workload import Step

PACKAGES = ("procrastinate", "psycopg")


def publish(step: Step) -> str:
    """Defer the job of a command. Return its id."""
    job = change.configure(lock=lock_of(step.learner))
    return str(job.defer(user_id=step.learner, exam_id=step.exam, to_status=step.to_status))


if __name__ == "__main__":
    with app.open():
        publishing.serve(publish, {name: version(name) for name in PACKAGES})
