"""The quarantine keeps messages that are no valid commands, until a person replays or discards them."""

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, insert

from db.models import QuarantinedMessage
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


_LOCK_MESSAGE = """
SELECT
    shard,
    body,
    headers ->> 'content-type' AS content_type,
    headers ->> %(signature_header)s AS signature
FROM quarantine
WHERE id = %(id)s
FOR UPDATE
"""

_DISCARD = "DELETE FROM quarantine WHERE id = ANY (%(ids)s::bigint[]) RETURNING id"


def lock_message(connection: Connection, message_id: int) -> RawMessage | None:
    """Lock a message of the quarantine and return it. None when there is no such message.

    A second transaction that asks for the same message waits.
    """
    values = {"id": message_id, "signature_header": SIGNATURE_HEADER}
    row = connection.exec_driver_sql(_LOCK_MESSAGE, values).one_or_none()
    if row is None:
        return None
    return RawMessage(
        shard=row.shard, body=bytes(row.body), content_type=row.content_type, signature=row.signature
    )


def discard(connection: Connection, message_ids: Collection[int]) -> set[int]:
    """Delete messages from the quarantine. Returns those that were there."""
    return set(connection.exec_driver_sql(_DISCARD, {"ids": list(message_ids)}).scalars())


# --- those that fit ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Fitting:
    """Which messages are meant. None stands for any.

    Parameters:
        code: why they are no valid commands.
        source: the sender.
    """

    code: str | None = None
    source: str | None = None

    def as_json(self) -> dict[str, str]:
        """Return the members that are set."""
        return {name: value for name, value in asdict(self).items() if value is not None}


# The quarantine is bounded, and its bodies are stored beside the table: these read some megabytes at most.
_FITS = """
    (%(code)s::text IS NULL OR code = %(code)s) AND (%(source)s::text IS NULL OR source = %(source)s)
"""

_COUNT_FITTING = f"SELECT count(*) AS number, coalesce(max(id), 0) AS last FROM quarantine WHERE {_FITS}"  # noqa: S608

_FITTING = f"""
SELECT id
FROM quarantine
WHERE id > %(after)s AND id <= %(last)s AND {_FITS}
ORDER BY id
LIMIT %(limit)s
"""  # noqa: S608 - no values

_PAGE = f"""
SELECT id, code, detail, size, received_at, source, command_id
FROM quarantine
WHERE id > %(after)s AND {_FITS}
ORDER BY id
LIMIT %(limit)s
"""  # noqa: S608 - no values


def count(connection: Connection, wanted: Fitting) -> tuple[int, int]:
    """Return how many messages fit, and the id of the newest of them; 0 when there is none."""
    row = connection.exec_driver_sql(_COUNT_FITTING, asdict(wanted)).one()
    return row.number, row.last


def ids(connection: Connection, wanted: Fitting, *, after: int, last: int, limit: int) -> list[int]:
    """Return the ids of messages that fit, oldest first.

    Parameters:
        after: ids above this one.
        last: and not above this one.
    """
    values = asdict(wanted) | {"after": after, "last": last, "limit": limit}
    return list(connection.exec_driver_sql(_FITTING, values).scalars())


def page(connection: Connection, wanted: Fitting, *, after: int, limit: int) -> list[dict[str, Any]]:
    """Return messages that fit, without their bodies, oldest first."""
    values = asdict(wanted) | {"after": after, "limit": limit}
    return [dict(row._mapping) for row in connection.exec_driver_sql(_PAGE, values)]
