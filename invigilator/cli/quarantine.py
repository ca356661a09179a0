"""`invigilator quarantine`: shows, replays and discards messages that are no valid commands."""

from base64 import b64encode
from typing import TYPE_CHECKING, Any

import click

from events.errors import InvigilatorError
from invigilator.cli.options import JSON, JSON_LINES, LIMIT, REASON
from invigilator.cli.output import Row, print_document, print_done, print_rows, rows_wanted

if TYPE_CHECKING:
    from worker.settings import Settings

COLUMNS = ("id", "received_at", "code", "source", "command_id", "size", "detail")

ID = click.IntRange(1, 2**63 - 1)  # the range of PostgreSQL's bigint
MESSAGE_IDS = click.argument("message_ids", type=ID, nargs=-1, required=True, metavar="ID...")

app = click.Group(
    "quarantine",
    help="Look at messages that are no valid commands, replay and discard them.",
    no_args_is_help=False,
)


@app.command("list")
@click.option("--source", metavar="S", help="Only from this sender.")
@click.option("--id", "command_id", metavar="ID", help="Only with this command's id.")
@LIMIT
@JSON_LINES
def list_(source: str | None, command_id: str | None, limit: int | None, as_json: bool) -> None:
    """List the messages in quarantine, oldest first."""
    from db import lookups
    from invigilator.cli.database import reading

    with reading() as connection:
        rows = lookups.quarantine(
            connection, source=source, command_id=command_id, limit=rows_wanted(limit, as_json)
        )
        print_rows(rows, COLUMNS, as_json, "messages in quarantine", limit=limit)


@app.command("show")
@click.argument("message_id", type=ID, metavar="ID")
@JSON
def show(message_id: int, as_json: bool) -> None:
    """Show a message whole. Its body may hold personal data."""
    from db import lookups
    from invigilator.cli.database import reading

    with reading() as connection:
        found = lookups.quarantined(connection, message_id)
    if found is None:
        raise InvigilatorError("no such message; `invigilator quarantine list` shows the existing ones")
    print_document(_readable(found), as_json)


def _readable(message: Row) -> dict[str, Any]:
    body = bytes(message["body"])
    try:
        return {**message, "body": body.decode("utf-8"), "body_encoding": "utf-8"}
    except UnicodeDecodeError:
        return {**message, "body": b64encode(body).decode("ascii"), "body_encoding": "base64"}


@app.command("replay")
@MESSAGE_IDS
@REASON
@JSON
def replay(message_ids: tuple[int, ...], reason: str | None, as_json: bool) -> None:
    """Publish messages again, unchanged, at the end of their queue, and remove them from the quarantine.

    A command goes to the shard of its learner, even if it arrived on another one.
    """
    from invigilator.acts import quarantine
    from invigilator.cli.broker import open_publisher
    from invigilator.cli.database import open_engine
    from invigilator.cli.person import acting_as
    from worker.engines import resolve
    from worker.settings import load

    settings = resolve(load())
    with open_engine(settings) as engine, open_publisher(_as_stored(settings)) as publisher:
        refused = quarantine.replay(engine, acting_as(settings), publisher, message_ids, reason)
    print_done("replayed", len(set(message_ids)) - len(refused), refused, as_json)


def _as_stored(settings: "Settings") -> "Settings":
    """Return the settings with the number of shards that the database holds, which decides."""
    from db import resharding
    from invigilator.cli.database import reading

    with reading(settings) as connection:
        stored = resharding.read(connection).number
    return settings.model_copy(update={"command_shards": stored or settings.command_shards})


@app.command("discard")
@MESSAGE_IDS
@REASON
@JSON
def discard(message_ids: tuple[int, ...], reason: str | None, as_json: bool) -> None:
    """Delete messages. They cannot be restored."""
    from invigilator.acts import quarantine
    from invigilator.cli.person import acting_person

    with acting_person() as (connection, actor):
        deleted = quarantine.discard(connection, actor, message_ids, reason)
    refused = {
        message_id: quarantine.NO_SUCH_MESSAGE for message_id in message_ids if message_id not in deleted
    }
    print_done("discarded", len(deleted), refused, as_json)
