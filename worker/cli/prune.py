"""`invigilator prune`: remove what has been finished for long."""

from dataclasses import asdict
from typing import Annotated

import typer

from worker.cli.output import AsJson, print_document


def prune(
    older_than: Annotated[
        str,
        typer.Option(help="How long ago it must have ended: 90d, 12h or 30m.", metavar="AGE"),
    ],
    as_json: AsJson = False,
) -> None:
    """Remove finished effects with their tries, and commands with their outcomes.

    The record, its history, and everything that is owed or failed stay.
    """
    from threading import Event

    from worker.cli.database import open_engine
    from worker.durations import parse_duration
    from worker.pruning import prune

    try:
        age = parse_duration(older_than)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--older-than") from None
    with open_engine() as engine:
        removed = prune(engine, age, Event())
    print_document(asdict(removed), as_json)
