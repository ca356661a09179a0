"""`invigilator attempts`: shows attempts with their history and effects."""

import click

from events.vocabulary import Status
from invigilator.cli.options import JSON, JSON_LINES, LIMIT, EnumChoice
from invigilator.cli.output import failing, print_document, print_rows, rows_wanted, warn

COLUMNS = ("exam_id", "user_id", "status", "started_at", "completed_at", "removed_at")

app = click.Group("attempts", help="Look at attempts.", no_args_is_help=False)


@app.command("show")
@click.option("--exam", required=True, metavar="E", help="The exam's id.")
@click.option("--user", required=True, metavar="U", help="The learner's id.")
@JSON
def show(exam: str, user: str, as_json: bool) -> None:
    """Show the live attempt with its history and its effects. Without one, show the attempt removed last."""
    from db import lookups
    from invigilator.cli.database import reading

    with reading() as connection:
        found = lookups.attempt_history(connection, exam, user)
    missing = found["attempt"] is None
    if missing:
        warn("no such attempt; `invigilator attempts list` shows the existing ones")
    with failing(missing):
        print_document(found, as_json)


@app.command("list")
@click.option("--course", metavar="C", help="Only of this course.")
@click.option("--exam", metavar="E", help="Only at this exam.")
@click.option("--user", metavar="U", help="Only this learner's.")
@click.option("--status", type=EnumChoice(Status), metavar="S", help="Only with this status.")
@click.option("--removed", is_flag=True, help="Also list removed attempts.")
@LIMIT
@JSON_LINES
def list_(
    course: str | None,
    exam: str | None,
    user: str | None,
    status: Status | None,
    removed: bool,
    limit: int | None,
    as_json: bool,
) -> None:
    """List live attempts, oldest first."""
    from db import lookups
    from invigilator.cli.database import reading

    with reading() as connection:
        rows = lookups.attempts(
            connection,
            course_id=course,
            exam_id=exam,
            user_id=user,
            status=status,
            removed=removed,
            limit=rows_wanted(limit, as_json),
        )
        print_rows(rows, COLUMNS, as_json, "attempts", limit=limit)
