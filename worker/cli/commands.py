"""`invigilator commands`: what became of commands."""

from typing import Annotated

import typer

from events.errors import InvigilatorError
from events.vocabulary import Outcome, OutcomeCode
from worker.cli.output import AsJson, AsJsonLines, Limit, print_document, print_rows, rows_wanted

COLUMNS = ("handled_at", "source", "id", "type", "outcome", "code")

app = typer.Typer(help="Look at what became of commands.")


@app.command("show")
def show(
    source: Annotated[str, typer.Option(help="Who sent it.", metavar="S")],
    command_id: Annotated[str, typer.Option("--id", help="Its id.", metavar="ID")],
    as_json: AsJson = False,
) -> None:
    """Show the outcome of one command."""
    from db import lookups
    from worker.cli.database import reading

    with reading() as connection:
        found = lookups.command(connection, source, command_id)
    if found is None:
        raise InvigilatorError(
            "no command with this source and id was handled; it may still be queued, or in quarantine"
        )
    print_document(found, as_json)


@app.command("list")
def list_(
    outcome: Annotated[Outcome | None, typer.Option(help="Only with this outcome.", metavar="O")] = None,
    code: Annotated[OutcomeCode | None, typer.Option(help="Only with this code.", metavar="C")] = None,
    limit: Limit = None,
    as_json: AsJsonLines = False,
) -> None:
    """List the outcomes of commands, newest first."""
    from db import lookups
    from worker.cli.database import reading

    with reading() as connection:
        rows = lookups.commands(connection, outcome=outcome, code=code, limit=rows_wanted(limit, as_json))
        print_rows(rows, COLUMNS, as_json, "commands")
