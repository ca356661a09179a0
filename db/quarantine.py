"""The quarantine keeps messages that are no valid commands, until a person replays or discards them."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, insert

from events.signing import SIGNATURE_HEADER
from events.vocabulary import QuarantineCode

TRIMMED_ROWS = 2_000
"""The most messages discarded at a time. A batch adds fewer, so the quarantine shrinks to its bounds."""
MEBIBYTE = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Bounds:
    """The bounds of the quarantine: a flood of messages must not fill the disk."""

    messages: int = 10_000
    megabytes: int = 1_024
    """All bodies together, in MiB."""


DEFAULT_BOUNDS = Bounds()


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A message for the quarantine, whole."""

    code: QuarantineCode
    detail: str
    headers: dict[str, Any]
    body: bytes
    received_at: datetime
    source: str | None = None
    """As the message says. None if it cannot be read, as `command_id`."""
    command_id: str | None = None
    user_id: str | None = None
    """The learner, as the message says. None if that cannot be read, or it names none."""


@dataclass(frozen=True, slots=True)
class Kept:
    """What was put into quarantine."""

    ids: Sequence[int]
    """Of the messages, in their order."""
    discarded: int
    """How many older messages had to make room."""
    has_subscribers: bool
    """Whether anybody subscribes to events."""


# --- a batch -----------------------------------------------------------------------------------------------

# The newest message stays, however big it is.
#
# Nobody waits here, neither for another shard nor for a person who replays a message. What another shard adds or
# discards at the same time is not seen: the next one to add messages evens it out.
#
# An array rather than a join makes PostgreSQL look the rows up. For a join it may read the whole table.
_TRIM_QUARANTINE = """
WITH sized AS (
    SELECT id, row_number() OVER newest_first AS number, sum(size) OVER newest_first AS total
    FROM quarantine
    WINDOW newest_first AS (ORDER BY id DESC)
), discarded AS (
    DELETE FROM quarantine
    WHERE id = ANY (ARRAY(
        SELECT id
        FROM quarantine
        WHERE id <= (
            SELECT max(id)
            FROM sized
            WHERE number > 1 AND (number > %(messages)s OR total > %(bytes)s)
        )
        ORDER BY id
        LIMIT %(trimmed_rows)s
        FOR UPDATE SKIP LOCKED
    ))
    RETURNING id
), counted AS (
    UPDATE shards
    SET quarantine_discarded = quarantine_discarded + (SELECT count(*) FROM discarded)
    WHERE shard = %(shard)s AND EXISTS (SELECT FROM discarded)
)
SELECT (SELECT count(*) FROM discarded) AS discarded, EXISTS (SELECT FROM subscribers) AS has_subscribers
"""


def write(
    connection: Connection, shard: int, messages: Sequence[Unreadable], bounds: Bounds = DEFAULT_BOUNDS
) -> Kept:
    """Put messages into quarantine, raw, and discard the oldest ones beyond its bounds. The shard counts those."""
    if not messages:
        return Kept(ids=(), discarded=0, has_subscribers=False)
    from db.models import QuarantinedMessage  # a process that meets no such message loads no ORM

    # The one hot set that does not travel as JSON: bodies may be hundreds of MiB, and JSON would copy them.
    added = connection.execute(
        insert(QuarantinedMessage).returning(QuarantinedMessage.id, sort_by_parameter_order=True),
        [
            {
                "shard": shard,
                "code": message.code,
                "detail": message.detail,
                "headers": message.headers,
                "body": message.body,
                "received_at": message.received_at,
                "source": message.source,
                "command_id": message.command_id,
                "user_id": message.user_id,
            }
            for message in messages
        ],
    )
    values = {
        "messages": bounds.messages,
        "bytes": bounds.megabytes * MEBIBYTE,
        "trimmed_rows": TRIMMED_ROWS,
        "shard": shard,
    }
    trimmed = connection.exec_driver_sql(_TRIM_QUARANTINE, values).one()
    return Kept(added.scalars().all(), trimmed.discarded, trimmed.has_subscribers)


# --- a person ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class RawMessage:
    """A message as it came from the broker, and the shard that took it."""

    shard: int
    body: bytes
    content_type: str | None
    signature: str | None
    """None when it had none."""
    about: dict[str, Any]
    """What is known of it without its body: id, code, source, command_id, user_id."""
    user_id: str | None
    """The learner. None if that is not known."""
    is_erased: bool
    """Whether its learner was erased, and its body with them."""


_ABOUT = """json_build_object(
    'id', id, 'code', code, 'source', source, 'command_id', command_id, 'user_id', user_id
)"""

_LOCK_MESSAGE = f"""
SELECT
    {_ABOUT} AS about,
    shard,
    body,
    headers ->> 'content-type' AS content_type,
    headers ->> %(signature_header)s AS signature,
    user_id,
    erased_at IS NOT NULL AS is_erased
FROM quarantine
WHERE id = %(id)s
FOR UPDATE
"""  # noqa: S608 - no values

_DISCARD = f"""
DELETE FROM quarantine WHERE id = ANY (%(ids)s::bigint[]) RETURNING id, {_ABOUT} AS about
"""  # noqa: S608 - no values


def lock_message(connection: Connection, message_id: int) -> RawMessage | None:
    """Lock a message of the quarantine and return it. None when there is no such message.

    A second transaction that asks for the same message waits.
    """
    values = {"id": message_id, "signature_header": SIGNATURE_HEADER}
    row = connection.exec_driver_sql(_LOCK_MESSAGE, values).one_or_none()
    if row is None:
        return None
    return RawMessage(
        shard=row.shard,
        body=bytes(row.body),
        content_type=row.content_type,
        signature=row.signature,
        user_id=row.user_id,
        is_erased=row.is_erased,
        about=row.about,
    )


def discard(connection: Connection, message_ids: Collection[int]) -> dict[int, dict[str, Any]]:
    """Delete messages from the quarantine. Returns what is known of those that were there, by id."""
    rows = connection.exec_driver_sql(_DISCARD, {"ids": list(message_ids)})
    return {row.id: row.about for row in rows}
