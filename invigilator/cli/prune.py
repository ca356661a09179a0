"""`invigilator prune`: removes old commands and finished effects."""

from dataclasses import asdict

import click

from invigilator.cli.options import JSON
from invigilator.cli.output import print_document, warn


@click.command("prune")
@click.option(
    "--older-than", required=True, metavar="AGE", help="How long ago it must have ended: 90d, 12h or 30m."
)
@JSON
def prune(older_than: str, as_json: bool) -> None:
    """Remove finished effects with their tries, and commands with their outcomes.

    The record, its history, and everything that is owed or failed stay.
    """
    from threading import Event

    from db import partitions
    from invigilator.cli.database import open_engine
    from worker.durations import parse_duration
    from worker.pruning import OWNER_ONLY, prune

    try:
        age = parse_duration(older_than)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--older-than") from None
    with open_engine() as engine:
        removed = prune(engine, age, Event())
        with engine.connect() as connection:
            divided = partitions.read(connection)
    if divided.partitions and not divided.is_owner:
        warn(f"old partitions stay: {OWNER_ONLY}")
    print_document(asdict(removed), as_json)
