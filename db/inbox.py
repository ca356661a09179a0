"""Which commands are new: the inbox, and their outcomes."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, any_, delete, exists, func, insert, or_, select, tuple_, update

from db.models import InboxEntry, QuarantinedMessage, Shard
from events.vocabulary import Outcome, OutcomeCode, QuarantineCode

Key = tuple[str, str]
"""(source, id) of a command."""

TRIMMED_ROWS = 2_000
"""Discarded from quarantine at a time, at most: more than a batch may add, so that it shrinks to its bounds."""


MEBIBYTE = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Bounds:
    """Of the quarantine; a flood of messages must not fill the disk."""

    messages: int = 10_000
    megabytes: int = 1_024
    """Of bodies, in MiB."""


DEFAULT_BOUNDS = Bounds()


@dataclass(frozen=True, slots=True)
class Arrival:
    """What the inbox keeps of a command."""

    key: Key
    type: str
    fingerprint: bytes


@dataclass(frozen=True, slots=True)
class Handled:
    """What became of a command."""

    outcome: Outcome
    code: OutcomeCode | None = None
    detail: str | None = None


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A message for the quarantine, with everything that there is of it."""

    code: QuarantineCode
    detail: str
    headers: dict[str, Any]
    body: bytes
    received_at: datetime


def fingerprints(connection: Connection, keys: Iterable[Key]) -> dict[Key, bytes]:
    """The fingerprints under which commands were first seen."""
    wanted = list(keys)
    if not wanted:
        return {}
    entry = tuple_(InboxEntry.source, InboxEntry.command_id)
    found = connection.execute(
        select(InboxEntry.source, InboxEntry.command_id, InboxEntry.fingerprint).where(entry.in_(wanted))
    )
    return {(source, command_id): fingerprint for source, command_id, fingerprint in found}


def write_quarantine(
    connection: Connection, shard: int, messages: Sequence[Unreadable], bounds: Bounds = DEFAULT_BOUNDS
) -> int:
    """Put messages into quarantine, raw, and discard the oldest ones beyond its bounds.

    Returns how many were discarded; the shard counts them.
    """
    if not messages:
        return 0
    connection.execute(
        insert(QuarantinedMessage),
        [
            {
                "shard": shard,
                "code": message.code,
                "detail": message.detail,
                "headers": message.headers,
                "body": message.body,
                "received_at": message.received_at,
            }
            for message in messages
        ],
    )
    return _trim_quarantine(connection, shard, bounds)


def _trim_quarantine(connection: Connection, shard: int, bounds: Bounds) -> int:
    """Discard the oldest messages. The newest one stays, however big it is.

    What another shard adds or discards at the same time is not seen: the next one to add evens it out. Nobody is
    waited for: not another shard, and not a person who replays a message.
    """
    newest_first = QuarantinedMessage.id.desc()
    sized = select(
        QuarantinedMessage.id,
        func.row_number().over(order_by=newest_first).label("number"),
        func.sum(QuarantinedMessage.size).over(order_by=newest_first).label("total"),
    ).subquery()
    newest_beyond = select(func.max(sized.c.id)).where(
        sized.c.number > 1,
        or_(sized.c.number > bounds.messages, sized.c.total > bounds.megabytes * MEBIBYTE),
    )
    chosen = (
        select(QuarantinedMessage.id)
        .where(QuarantinedMessage.id <= newest_beyond.scalar_subquery())
        .order_by(QuarantinedMessage.id)
        .limit(TRIMMED_ROWS)
        .with_for_update(skip_locked=True)
        .scalar_subquery()
    )
    discarded = (
        delete(QuarantinedMessage)
        # An array, so that the rows are looked up: for a join, PostgreSQL may read the whole table.
        .where(QuarantinedMessage.id == any_(func.array(chosen)))
        .returning(QuarantinedMessage.id)
        .cte("discarded")
    )
    number = select(func.count()).select_from(discarded).scalar_subquery()
    counted = (
        update(Shard)
        .where(Shard.shard == shard, exists().select_from(discarded))
        .values(quarantine_discarded=Shard.quarantine_discarded + number)
        .returning(Shard.shard)
        .cte("counted")
    )
    return connection.scalar(select(number).add_cte(counted)) or 0
