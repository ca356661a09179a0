"""The event log: what happened, its two ends, and who listens."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import CheckConstraint, Identity, Index, UniqueConstraint, text, true
from sqlalchemy.orm import Mapped, mapped_column

from db.models.base import Base


class Event(Base):
    """Something that happened. It is written in the transaction of the change, and numbered in a later one."""

    __tablename__ = "events"
    __table_args__ = (
        CheckConstraint("position >= 1", name="position"),
        UniqueConstraint("position"),
        Index("ix_events_unnumbered", "sequence", postgresql_where=text("position IS NULL")),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    sequence: Mapped[int] = mapped_column(Identity(always=True))
    """Of two events of one learner's record the later one has the greater number: who inserts holds the learner's
    lock. It leaves gaps, and its order is not that of the commits, so it is no cursor."""
    position: Mapped[int | None]
    """Its place in the log. Null until it is numbered."""
    type: Mapped[str]
    time: Mapped[datetime]
    """The moment of handling."""
    subject: Mapped[str | None]
    """The attempt's code."""
    user_id: Mapped[str | None]
    traceparent: Mapped[str | None]
    data: Mapped[dict[str, Any]]


class EventLog(Base):
    """How far the log is numbered, and up to where it was pruned. There is one row."""

    __tablename__ = "event_log"
    __table_args__ = (
        CheckConstraint("singleton", name="singleton"),
        CheckConstraint("pruned_to <= position", name="pruned_to"),
    )

    singleton: Mapped[bool] = mapped_column(primary_key=True, server_default=true())
    position: Mapped[int] = mapped_column(server_default="0")
    """The last position that was given."""
    pruned_to: Mapped[int] = mapped_column(server_default="0")
    """The last position that was removed. Those after it are all there."""
    server_run: Mapped[str | None]
    """Names the run of the database server that gave the last position. Another run may be that of a backup."""


class Subscriber(Base):
    """One who listens to the log, how far they have come, and the one process that serves them.

    A process serves a subscriber once it has raised `epoch`, the fencing token, as for a shard.
    """

    __tablename__ = "subscribers"
    __table_args__ = (CheckConstraint("(owner IS NULL) = (lease_until IS NULL)", name="owner_has_lease"),)

    name: Mapped[str] = mapped_column(primary_key=True)
    """The table's name in the file of subscriptions, such as `feed.lms`."""
    definition: Mapped[dict[str, Any]]
    """What that table says, without secrets."""
    position: Mapped[int | None]
    """The cursor: the last position that the subscriber has. Null for one who keeps a cursor of their own."""
    owner: Mapped[str | None]
    epoch: Mapped[int] = mapped_column(server_default="0")
    lease_until: Mapped[datetime | None]
    failing_since: Mapped[datetime | None]
    """Since when the other side does not take events."""
    off_since: Mapped[datetime | None]
    """Since when a webhook is switched off."""
    reason: Mapped[str | None]
    """Why it fails or is off. While it does not: which events were skipped last."""
    skipped: Mapped[int] = mapped_column(server_default="0")
    """How many events the other side's format could not hold."""
