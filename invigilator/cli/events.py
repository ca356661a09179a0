"""`invigilator events`: lists what happened, and has a feed told of it again."""

from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING

import click

from invigilator.cli.options import JSON, JSON_LINES, LIMIT, REASON
from invigilator.cli.output import Row, print_document, print_rows, rows_wanted

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from events.cloudevent import Event

COLUMNS = ("sequence", "time", "type", "subject", "partitionkey")
POSITION = click.IntRange(0, 2**63 - 1)  # the range of PostgreSQL's bigint

app = click.Group("events", help="Look at what happened, and tell it again.", no_args_is_help=False)


@app.command("list")
@click.option(
    "--after", type=POSITION, default=0, metavar="POSITION", help="Only events after this position."
)
@click.option(
    "--type", "pattern", default="*", metavar="T", help="Only of this type, or types: exam.attempt.*"
)
@click.option("--user", metavar="U", help="Only of this learner.")
@LIMIT
@JSON_LINES
def list_(after: int, pattern: str, user: str | None, limit: int | None, as_json: bool) -> None:
    """List the events of the log, oldest first."""
    from events.cloudevent import as_object, source_of
    from events.event_types import has_type
    from invigilator.cli.database import reading
    from worker.settings import load

    source = source_of(load().instance)
    with reading() as connection:
        found: Iterator[Row] = (
            dict.fromkeys(COLUMNS) | as_object(event, source) if not as_json else as_object(event, source)
            for event in _log(connection, after)
            if has_type(event.type, [pattern]) and user in (None, event.user_id)
        )
        rows = islice(found, rows_wanted(limit, as_json))
        print_rows(rows, COLUMNS, as_json, "events", limit=limit)


def _log(connection: "Connection", after: int) -> "Iterator[Event]":
    from db import event_log

    while events := event_log.read(connection, after):
        yield from events
        after = events[-1].position


@app.command("replay")
@click.option("--to", "name", required=True, metavar="SUBSCRIBER", help="Whom to tell, such as feed.lms.")
@click.option(
    "--after", type=POSITION, required=True, metavar="POSITION", help="Tell what comes after this position."
)
@REASON
@JSON
def replay(name: str, after: int, reason: str | None, as_json: bool) -> None:
    """Tell a feed again what comes after a position. What it has already comes once more, with the same ids."""
    from invigilator.acts import events
    from invigilator.cli.person import acting_person

    with acting_person() as (connection, actor):
        events.replay(connection, actor, name, after, reason)
    print_document({"subscriber": name, "after": after}, as_json)
