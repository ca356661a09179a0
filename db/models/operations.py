"""What operators look at: signs of life, totals and their past, pauses, causes of failures, and what was pruned."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import CheckConstraint, Float, Index, Integer, Text, func
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, mapped_column

from db.models.base import Base


class Process(Base):
    """A process that runs. It renews its row every few seconds, and takes it away at a clean end."""

    __tablename__ = "processes"
    __table_args__ = (Index(None, "role"),)

    id: Mapped[UUID] = mapped_column(primary_key=True)
    """Names one run of the process."""
    role: Mapped[str]
    """Its line in the Procfile, such as `commands`."""
    host: Mapped[str]
    pid: Mapped[int]
    state: Mapped[str]
    """What it does, in a word, such as `working` or `stopping`."""
    doing: Mapped[dict[str, Any]]
    """What it serves and what it is doing: shards, queues, services."""
    started_at: Mapped[datetime] = mapped_column(server_default=func.now())
    seen_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Total(Base):
    """A count that only grows, such as that of the tries by kind and result, or that follows the rows of a table.

    Each process adds to rows of its own, in the transaction of what it counts, so that nobody waits for another.
    The total is the sum over the writers.
    """

    __tablename__ = "totals"

    name: Mapped[str] = mapped_column(primary_key=True)
    labels: Mapped[list[str]] = mapped_column(ARRAY(Text), primary_key=True)
    writer: Mapped[UUID] = mapped_column(primary_key=True)
    """The process. The nil UUID has what people did, and what processes that have ended have left."""
    value: Mapped[float] = mapped_column(Float)


class Sample(Base):
    """What a total was at some moment. Rates over the last hours are differences between samples."""

    __tablename__ = "samples"

    at: Mapped[datetime] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    labels: Mapped[list[str]] = mapped_column(ARRAY(Text), primary_key=True)
    value: Mapped[float] = mapped_column(Float)


class Pause(Base):
    """A time in which effects of a kind are neither offered nor claimed. Those that have ended stay.

    What ends a pause early sets `ends_at`, so no two pauses of a kind overlap.
    """

    __tablename__ = "pauses"
    __table_args__ = (CheckConstraint("ends_at >= since", name="ends_at"), Index(None, "kind", "since"))

    id: Mapped[UUID] = mapped_column(primary_key=True)
    kind: Mapped[str]
    since: Mapped[datetime] = mapped_column(server_default=func.now())
    ends_at: Mapped[datetime | None]
    """Null for a pause that lasts until a person ends it."""
    reason: Mapped[str | None]


class Cause(Base):
    """A way in which tries of a kind fail. Failures that differ only in numbers and ids have one cause."""

    __tablename__ = "causes"

    id: Mapped[str] = mapped_column(primary_key=True)
    """A fingerprint of the kind, the exception, the status and the reason."""
    kind: Mapped[str]
    status: Mapped[int | None] = mapped_column(Integer)
    """What HTTP or SMTP has answered. Null where nothing has."""
    exception: Mapped[str | None]
    reason: Mapped[str]
    """Without the numbers and ids in which failures of one cause differ."""
    first_seen: Mapped[datetime] = mapped_column(server_default=func.now())


class Pruned(Base):
    """Up to which moment rows of a table may have been removed because they were old."""

    __tablename__ = "pruned"

    what: Mapped[str] = mapped_column(primary_key=True)
    """The table."""
    before: Mapped[datetime]
