"""The driver of DBOS: enqueues a workflow for each command, one transaction each."""

from importlib.metadata import version

from dbos import DBOSClient

from benchmarks import publishing
from benchmarks.alternatives.dbos.settings import DATABASE_URL, NAME, QUEUE, WORKFLOW
from benchmarks.workload import Step

PACKAGES = ("dbos", "psycopg", "sqlalchemy")


def main() -> None:
    """Publish until the end of standard input."""
    client = DBOSClient(system_database_url=DATABASE_URL, application_name=NAME)

    def publish(step: Step) -> str:
        handle = client.enqueue(
            {
                "workflow_name": WORKFLOW,
                # A command that comes twice is one workflow.
                "workflow_id": f"{step.learner} {step.exam} {step.to_status}",
                "queue_name": QUEUE,
                "queue_partition_key": str(step.learner),
            },
            step.learner,
            step.exam,
            step.to_status,
        )
        return str(handle.workflow_id)

    publishing.serve(publish, {name: version(name) for name in PACKAGES})
    client.destroy()


if __name__ == "__main__":
    main()
