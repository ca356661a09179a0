"""`invigilator attempts`: what became of attempts."""

from typing import Annotated

import typer

from events.vocabulary import Status
from worker.cli.output import (
    AsJson,
    AsJsonLines,
    Limit,
    failing,
    print_document,
    print_rows,
    rows_wanted,
    warn,
)

COLUMNS = ("exam_id", "user_id", "status", "started_at", "completed_at", "removed_at")

app = typer.Typer(help="Look at attempts.")


@app.command("show")
def show(
    exam: Annotated[str, typer.Option(help="The exam's id.", metavar="E")],
    user: Annotated[str, typer.Option(help="The learner's id.", metavar="U")],
    as_json: AsJson = False,
) -> None:
    """Show the live attempt, or else the last removed one, with its history and its effects."""
    from db import lookups
    from worker.cli.database import reading

    with reading() as connection:
        found = lookups.attempt_history(connection, exam, user)
    missing = found["attempt"] is None
    if missing:
        warn("no such attempt; `invigilator attempts list` names those that there are")
    with failing(missing):
        print_document(found, as_json)


@app.command("list")
def list_(
    course: Annotated[str | None, typer.Option(help="Only of this course.", metavar="C")] = None,
    exam: Annotated[str | None, typer.Option(help="Only at this exam.", metavar="E")] = None,
    user: Annotated[str | None, typer.Option(help="Only this learner's.", metavar="U")] = None,
    status: Annotated[Status | None, typer.Option(help="Only with this status.", metavar="S")] = None,
    removed: Annotated[bool, typer.Option("--removed", help="Removed ones, too.")] = False,
    limit: Limit = None,
    as_json: AsJsonLines = False,
) -> None:
    """List live attempts, oldest first."""
    from db import lookups
    from worker.cli.database import reading

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
        print_rows(rows, COLUMNS, as_json, "attempts")
