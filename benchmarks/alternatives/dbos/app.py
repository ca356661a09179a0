"""The DBOS application: its workflow, its transactions and its steps.

The import creates the tables of the datasource if they are missing.
"""

from dbos import DBOS, SQLAlchemyDatasource

from benchmarks.alternatives import rules
from benchmarks.alternatives.dbos.settings import DATABASE_URL, WORKFLOW
from benchmarks.alternatives.services import Services

services = Services()
source = SQLAlchemyDatasource.create(DATABASE_URL)
# The queue runs one command of a learner at a time, so SERIALIZABLE, which is the default, would only cost.
transaction = source.transaction(isolation_level="READ COMMITTED")


@transaction  # type: ignore[untyped-decorator]
def write(user_id: int, exam_id: str, to_status: str | None) -> None:
    """Create the attempt, or change its status."""
    connection = source.sql_session().connection()
    changed = connection.exec_driver_sql(*rules.statement(user_id, exam_id, to_status))
    if to_status is not None and not changed.rowcount:
        raise rules.TooEarlyError(user_id, exam_id, to_status)


@transaction  # type: ignore[untyped-decorator]
def decline_siblings(user_id: int, exam_id: str) -> list[str]:
    """Decline the learner's attempts at the course's other exams. Missing attempts are created first."""
    connection, values = source.sql_session().connection(), {"user_id": user_id, "exam_id": exam_id}
    connection.exec_driver_sql(rules.CREATE_SIBLINGS, values)
    return list(connection.exec_driver_sql(rules.DECLINE_SIBLINGS, values).scalars())


@DBOS.step(name="set_credit", retries_allowed=True, max_attempts=20)  # type: ignore[untyped-decorator]
def set_credit(user_id: int, exam_id: str, to_status: str) -> None:
    """Call the credit service."""
    services.set_credit(user_id, exam_id, rules.CREDIT_OF[to_status])


@DBOS.step(name="send_mail", retries_allowed=True, max_attempts=20)  # type: ignore[untyped-decorator]
def send_mail(user_id: int, exam_id: str, to_status: str) -> None:
    """Send a mail to the learner."""
    services.send_mail(user_id, exam_id, to_status)


@DBOS.workflow(name=WORKFLOW)  # type: ignore[untyped-decorator]
def change(user_id: int, exam_id: str, to_status: str | None) -> None:
    """Carry out a command and everything that follows from it."""
    write(user_id, exam_id, to_status)
    if to_status in rules.CREDIT_OF:
        set_credit(user_id, exam_id, to_status)
    if to_status in rules.MAILED:
        send_mail(user_id, exam_id, to_status)
    if to_status == "declined":
        for sibling in decline_siblings(user_id, exam_id):
            set_credit(user_id, sibling, to_status)
