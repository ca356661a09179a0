"""Which commands are new: the inbox, and their outcomes."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, insert, select, tuple_
from sqlalchemy.dialects.postgresql import insert as upsert

from db.models import HandledCommand, InboxEntry, QuarantinedMessage
from events.vocabulary import Outcome, OutcomeCode, QuarantineCode

Key = tuple[str, str]
"""(source, id) of a command."""


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


def register(connection: Connection, arrivals: Sequence[Arrival]) -> dict[Key, int]:
    """Insert the commands that were never seen, and return their inbox ids; the others are missing.

    Each key comes once. Sorted, because two shards insert the same broadcast commands: in different orders they
    would deadlock. A key that another transaction is inserting is waited for.
    """
    if not arrivals:
        return {}
    inserted = connection.execute(
        upsert(InboxEntry)
        .on_conflict_do_nothing()
        .returning(InboxEntry.id, InboxEntry.source, InboxEntry.command_id),
        [
            {
                "source": row.key[0],
                "command_id": row.key[1],
                "type": row.type,
                "fingerprint": row.fingerprint,
            }
            for row in sorted(arrivals, key=lambda arrival: arrival.key)
        ],
    )
    return {(source, command_id): inbox_id for inbox_id, source, command_id in inserted}


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


def write_outcomes(connection: Connection, outcomes: Sequence[tuple[int, datetime, Handled]]) -> None:
    """Write the outcome of each command: inbox id, when it was taken up, what became of it."""
    if outcomes:
        connection.execute(
            insert(HandledCommand),
            [
                {
                    "inbox_id": inbox_id,
                    "outcome": handled.outcome,
                    "code": handled.code,
                    "detail": handled.detail,
                    "handled_at": at,
                }
                for inbox_id, at, handled in outcomes
            ],
        )


def write_quarantine(connection: Connection, shard: int, messages: Sequence[Unreadable]) -> None:
    """Put messages into quarantine, raw."""
    if messages:
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
