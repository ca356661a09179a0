"""Messages that came in: the inbox, the outcomes, the shards and the quarantine."""

from datetime import datetime
from typing import Any

from sqlalchemy import (
    CheckConstraint,
    Computed,
    Double,
    ForeignKey,
    Identity,
    Index,
    Integer,
    UniqueConstraint,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from db.models.base import Base, one_of
from events.vocabulary import Outcome, QuarantineCode


class InboxEntry(Base):
    """A command that was seen. Two messages with the same (source, id) are one command."""

    __tablename__ = "inbox"
    __table_args__ = (
        UniqueConstraint("source", "command_id"),
        CheckConstraint("octet_length(fingerprint) = 32", name="fingerprint"),
    )

    id: Mapped[int] = mapped_column(Identity(always=True), primary_key=True)
    source: Mapped[str]
    command_id: Mapped[str]
    type: Mapped[str]
    fingerprint: Mapped[bytes]
    """SHA-256 of type and data. It tells a duplicate from another command that reuses the id."""
    sent_defaults: Mapped[str | None]
    """The names of the fields that were sent with their default values. Null before revision 0015."""


class HandledCommand(Base):
    """The one outcome of a command."""

    __tablename__ = "outcomes"
    __table_args__ = (
        one_of("outcome", Outcome),
        CheckConstraint("(outcome IN ('rejected', 'ignored')) = (code IS NOT NULL)", name="code"),
        Index(None, "handled_at"),
        Index(None, "code", "handled_at", postgresql_where=text("code IS NOT NULL")),
        Index(None, "outcome", "handled_at", postgresql_where=text("outcome <> 'applied'")),
        Index(None, "user_id", "handled_at", postgresql_where=text("user_id IS NOT NULL")),
    )

    inbox_id: Mapped[int] = mapped_column(ForeignKey("inbox.id", ondelete="CASCADE"), primary_key=True)
    outcome: Mapped[str]
    code: Mapped[str | None]
    detail: Mapped[str | None]
    handled_at: Mapped[datetime]
    # What the command was about. Null where it has no such field, and before revision 0013.
    user_id: Mapped[str | None]
    exam_id: Mapped[str | None]
    to_status: Mapped[str | None]
    # Which attempt it named. Null before revision 0036, too.
    attempt_code: Mapped[str | None]
    external_id: Mapped[str | None]


class QuarantinedMessage(Base):
    """A message that is no valid command, kept whole for a person to look at."""

    __tablename__ = "quarantine"
    __table_args__ = (
        one_of("code", QuarantineCode),
        Index("ix_quarantine_size", "id", postgresql_include=["size"]),
        Index(None, "source", "command_id", postgresql_where=text("source IS NOT NULL")),
        Index(None, "user_id", postgresql_where=text("user_id IS NOT NULL")),
    )

    id: Mapped[int] = mapped_column(Identity(always=True), primary_key=True)
    shard: Mapped[int] = mapped_column(Integer)
    code: Mapped[str]
    detail: Mapped[str]
    headers: Mapped[dict[str, Any]]
    body: Mapped[bytes]
    size: Mapped[int] = mapped_column(Integer, Computed("octet_length(body)", persisted=True))
    received_at: Mapped[datetime]
    # As the message says. Null where they cannot be read, and before revision 0014.
    source: Mapped[str | None]
    command_id: Mapped[str | None]
    user_id: Mapped[str | None]
    """The learner, as the message says. Null where that cannot be read, and before revision 0037."""
    erased_at: Mapped[datetime | None]
    """When the learner was erased, and the body with them."""


class Shard(Base):
    """A slice of the learners, and the one process that may write for it.

    A process owns the shard once it has raised `epoch`, the fencing token. A write that is guarded by an older
    epoch changes no row.
    """

    __tablename__ = "shards"
    __table_args__ = (
        CheckConstraint("shard >= 0", name="shard"),
        CheckConstraint("(owner IS NULL) = (lease_until IS NULL)", name="owner_has_lease"),
    )

    shard: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    owner: Mapped[str | None]
    epoch: Mapped[int]
    lease_until: Mapped[datetime | None]
    quarantine_discarded: Mapped[int] = mapped_column(server_default="0")
    """How many messages its batches pushed out of a full quarantine."""
    progressed_at: Mapped[datetime | None]
    """When its owner last finished a batch, or found nothing to do. Written with the owner's sign of life."""
    barrier_passed: Mapped[int | None]
    """The id of the last resharding whose barrier it has passed. Null before revision 0043."""


class Resharding(Base):
    """A change of the number of shards. `db.resharding` says how it goes on."""

    __tablename__ = "reshardings"
    __table_args__ = (
        CheckConstraint("from_shards >= 1 AND to_shards >= 1", name="shards"),
        Index(
            "ix_reshardings_unfinished",
            text("(finished_at IS NULL)"),
            unique=True,
            postgresql_where=text("finished_at IS NULL"),
        ),
    )

    id: Mapped[int] = mapped_column(Identity(always=True), primary_key=True)
    from_shards: Mapped[int] = mapped_column(Integer)
    to_shards: Mapped[int] = mapped_column(Integer)
    barrier: Mapped[str]
    """What nobody can guess who may only write to the queues."""
    notice_s: Mapped[float] = mapped_column(Double)
    settle_s: Mapped[float] = mapped_column(Double)
    begun_at: Mapped[datetime] = mapped_column(server_default=text("clock_timestamp()"))
    told_at: Mapped[datetime | None]
    """When the broker had been told that the number will change."""
    switched_at: Mapped[datetime | None]
    """When the broker had been told the new number."""
    finished_at: Mapped[datetime | None]
