"""`invigilator quarantine`: shows, replays and discards messages that are no valid commands."""

from base64 import b64encode
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import click

from events.errors import InvalidMessageError, InvigilatorError, PublishError
from invigilator.cli.options import JSON, JSON_LINES, LIMIT
from invigilator.cli.output import Row, print_document, print_done, print_rows, rows_wanted

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from db.quarantine import RawMessage
    from events.publisher import Publisher
    from worker.settings import Settings

COLUMNS = ("id", "received_at", "code", "source", "command_id", "size", "detail")
NO_SUCH_MESSAGE = "no such message"
MAX_CONTENT_TYPE = 255  # bytes, the limit of AMQP
MAX_REPLAYED_BYTES = 4 * 1024 * 1024  # the quarantine may have kept only a part of a larger message

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
@JSON
def replay(message_ids: tuple[int, ...], as_json: bool) -> None:
    """Publish messages again, unchanged, at the end of their queue, and remove them from the quarantine.

    A command goes to the shard of its learner, even if it arrived on another one.
    """
    from invigilator.cli.broker import open_publisher
    from invigilator.cli.database import open_engine
    from worker.engines import resolve
    from worker.settings import load

    settings = resolve(load())
    refused: dict[int, str] = {}
    chosen = list(dict.fromkeys(message_ids))
    with open_engine(settings) as engine, open_publisher(_as_stored(settings)) as publisher:
        away: str | None = None
        for message_id in chosen:
            try:
                reason = away or _replay(engine, publisher, message_id)
            except PublishError as error:  # the broker would refuse the others after the same wait
                reason = away = str(error)
            if reason:
                refused[message_id] = reason
    print_done("replayed", len(chosen) - len(refused), refused, as_json)


def _as_stored(settings: "Settings") -> "Settings":
    """Return the settings with the number of shards that the database holds, which decides."""
    from db import lookups
    from invigilator.cli.database import reading

    with reading(settings) as connection:
        stored = lookups.count_shards(connection)
    return settings.model_copy(update={"command_shards": stored or settings.command_shards})


def _replay(engine: "Engine", publisher: "Publisher", message_id: int) -> str | None:
    """Replay one message. Return the reason when it is not replayed, else None."""
    from db import quarantine
    from events.envelope import CONTENT_TYPE
    from events.signing import SIGNATURE_HEADER
    from invigilator.cli.database import writing

    with writing(engine) as connection:
        message = quarantine.lock_message(connection, message_id)
        if message is None:
            return NO_SUCH_MESSAGE
        if message.is_erased:
            return "its learner was erased, and its body with them: discard it"
        if len(message.body) > MAX_REPLAYED_BYTES:
            return f"{len(message.body)} bytes are no command: discard it"
        shard = _right_shard(message, publisher.shards)
        if shard >= publisher.shards:
            return f"its shard {message.shard} does not exist any more: publish its body anew"
        content_type = (message.content_type or CONTENT_TYPE).encode()[:MAX_CONTENT_TYPE]
        headers = {SIGNATURE_HEADER: message.signature} if message.signature else {}
        # Publish first, then delete: a crash in between leaves a second copy, which the inbox recognises. The other
        # order would lose the message.
        publisher.publish_raw(message.body, shard, content_type.decode("utf-8", "ignore"), headers)
        quarantine.discard(connection, [message_id])
    return None


def _right_shard(message: "RawMessage", shards: int) -> int:
    """Return the shard of the message's learner, or the shard that it arrived on when it names no learner."""
    from events.envelope import parse
    from events.sharding import shard_of

    with suppress(InvalidMessageError):
        user_id = parse(message.body, message.content_type).data.learner_id
        if user_id is not None:
            return shard_of(user_id, shards)
    return message.shard


@app.command("discard")
@MESSAGE_IDS
@JSON
def discard(message_ids: tuple[int, ...], as_json: bool) -> None:
    """Delete messages. They cannot be restored."""
    from db import quarantine
    from invigilator.cli.database import open_engine, writing

    with open_engine() as engine, writing(engine) as connection:
        deleted = quarantine.discard(connection, message_ids)
    refused = {message_id: NO_SUCH_MESSAGE for message_id in message_ids if message_id not in deleted}
    print_done("discarded", len(deleted), refused, as_json)
