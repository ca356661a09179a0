"""`invigilator attempts`: shows attempts with their history and effects."""

from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any
from uuid import UUID

import click

from events.vocabulary import Status
from invigilator.cli.options import JSON, JSON_LINES, LIMIT, EnumChoice
from invigilator.cli.output import Row, failing, print_document, print_rows, rows_wanted, warn

if TYPE_CHECKING:
    from sqlalchemy import Connection

COLUMNS = ("exam_id", "user_id", "attempt_code", "status", "started_at", "completed_at", "removed_at")

app = click.Group("attempts", help="Look at attempts.", no_args_is_help=False)


@app.command("show")
@click.option("--exam", metavar="E", help="The exam's id, together with --user.")
@click.option("--user", metavar="U", help="The learner's id, together with --exam.")
@click.option("--code", metavar="C", help="The attempt's code.")
@click.option("--id", "attempt_id", type=click.UUID, metavar="UUID", help="The attempt's id.")
@JSON
def show(
    exam: str | None, user: str | None, code: str | None, attempt_id: UUID | None, as_json: bool
) -> None:
    """Show an attempt with its history and its effects.

    --exam and --user show the live attempt, or without one the attempt removed last. --code and --id show that
    attempt, be it live or removed.
    """
    if (exam is None or user is None) and code is None and attempt_id is None:
        raise click.UsageError("name the attempt: --exam and --user, --code, or --id")
    from db import lookups
    from invigilator.cli.database import reading

    with reading() as connection:
        found = lookups.attempt_history(
            connection, exam_id=exam, user_id=user, code=code, attempt_id=attempt_id
        )
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
    from invigilator.cli.database import reading

    with reading() as connection:
        found = _attempts(
            connection,
            course_id=course,
            exam_id=exam,
            user_id=user,
            status=status,
            removed=None if removed else False,
        )
        rows = islice(found, rows_wanted(limit, as_json))
        print_rows(rows, COLUMNS, as_json, "attempts", limit=limit)


def _attempts(connection: "Connection", **wanted: Any) -> Iterator[Row]:
    """All attempts that fit, page by page. The parameters are those of `lookups.attempts`."""
    from db import lookups
    from db.streaming import STREAMED_ROWS

    page = lookups.attempts(connection, **wanted, limit=STREAMED_ROWS)
    yield from page.attempts
    while page.next is not None:
        page = lookups.attempts(connection, **wanted, after=page.next, limit=STREAMED_ROWS)
        yield from page.attempts
