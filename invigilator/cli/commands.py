"""`invigilator commands`: shows the outcomes of commands."""

import click

from events.errors import InvigilatorError
from events.vocabulary import Outcome, OutcomeCode
from invigilator.cli.options import JSON, JSON_LINES, LIMIT, EnumChoice
from invigilator.cli.output import print_document, print_rows, rows_wanted

COLUMNS = (
    "handled_at",
    "source",
    "id",
    "type",
    "user_id",
    "exam_id",
    "attempt_code",
    "external_id",
    "to_status",
    "outcome",
    "code",
)

app = click.Group("commands", help="Look at what became of commands.", no_args_is_help=False)


@app.command("show")
@click.option("--source", required=True, metavar="S", help="Who sent it.")
@click.option("--id", "command_id", required=True, metavar="ID", help="Its id.")
@JSON
def show(source: str, command_id: str, as_json: bool) -> None:
    """Show the outcome of one command. One that is in quarantine has the outcome `quarantined`."""
    from db import lookups
    from invigilator.cli.database import reading

    with reading() as connection:
        found = lookups.command(connection, source, command_id)
    if found is None:
        raise InvigilatorError(
            "no command with this source and id was handled; it may still be queued, or in quarantine "
            "without a source and an id that can be read"
        )
    print_document(found, as_json)


@app.command("list")
@click.option("--outcome", type=EnumChoice(Outcome), metavar="O", help="Only with this outcome.")
@click.option("--code", type=EnumChoice(OutcomeCode), metavar="C", help="Only with this code.")
@click.option("--user", metavar="U", help="Only about this learner.")
@click.option("--exam", metavar="E", help="Only about this exam.")
@LIMIT
@JSON_LINES
def list_(
    outcome: Outcome | None,
    code: OutcomeCode | None,
    user: str | None,
    exam: str | None,
    limit: int | None,
    as_json: bool,
) -> None:
    """List the outcomes of commands, newest first."""
    from db import lookups
    from invigilator.cli.database import reading

    with reading() as connection:
        rows = lookups.commands(
            connection,
            outcome=outcome,
            code=code,
            user_id=user,
            exam_id=exam,
            limit=rows_wanted(limit, as_json),
        )
        print_rows(rows, COLUMNS, as_json, "commands", limit=limit)
