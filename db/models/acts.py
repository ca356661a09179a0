"""What people did: the audit, and the acts in bulk that are on their way."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, Index, Integer, UniqueConstraint, func, text
from sqlalchemy.orm import Mapped, mapped_column

from db.models.base import Base


class Act(Base):
    """A step of something that a person did. It is written in the transaction of the step, and never changed.

    Each row holds the hash of the one before. A trigger refuses every change but one: `reason` and `salt` may
    become null, when the learner whom the act is about is erased. The hash covers the digest of the reason, so the
    chain still verifies.
    """

    __tablename__ = "acts"
    __table_args__ = (
        CheckConstraint("octet_length(hash) = 32 AND octet_length(previous) = 32", name="hashes"),
        CheckConstraint("(reason IS NULL) = (salt IS NULL)", name="reason_has_salt"),
        UniqueConstraint("act_id", "step"),
        Index(None, "at"),
        Index(None, "user_id", "at", postgresql_where=text("user_id IS NOT NULL")),
    )

    sequence: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    """Counts the rows from 1 without gaps."""
    act_id: Mapped[UUID]
    """What the steps of an act in bulk share."""
    step: Mapped[int] = mapped_column(Integer)
    """Counts the steps of the act from 1."""
    closing: Mapped[bool]
    """Whether the act ends with this step."""
    at: Mapped[datetime]
    actor: Mapped[str]
    is_claimed: Mapped[bool]
    """Whether nobody has proved that the actor is who they say."""
    via: Mapped[str]
    """`console`, `api` or `command line`."""
    origin: Mapped[str | None]
    """The address or the host from where it was done."""
    action: Mapped[str]
    """Such as `retry`."""
    user_id: Mapped[str | None]
    """The learner, of an act that is about one."""
    filter: Mapped[dict[str, Any]]
    """What the act was to apply to, as it was asked for."""
    number: Mapped[int]
    """To how many the step applied."""
    details: Mapped[dict[str, Any]]
    """What there was before and after."""
    reason: Mapped[str | None]
    salt: Mapped[bytes | None]
    reason_digest: Mapped[bytes | None]
    """HMAC-SHA256 of the reason with the salt as its key."""
    previous: Mapped[bytes]
    """The hash of the row before; zeros in the first."""
    hash: Mapped[bytes]
    """SHA-256 of all of the above but `reason` and `salt`."""


class ActTarget(Base):
    """An effect that a step of an act has changed."""

    __tablename__ = "act_targets"
    __table_args__ = (Index(None, "effect_id"),)

    act_sequence: Mapped[int] = mapped_column(ForeignKey("acts.sequence"), primary_key=True)
    effect_id: Mapped[UUID] = mapped_column(primary_key=True)
    """No foreign key: the effect may be pruned before the act is."""
    before: Mapped[str]
    """Its state before."""
    after: Mapped[str]


class BulkAct(Base):
    """An act in bulk: how far it has come, and whether it is to stop."""

    __tablename__ = "bulk_acts"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    """The act's id in the audit."""
    action: Mapped[str]
    filter: Mapped[dict[str, Any]]
    actor: Mapped[str]
    expected: Mapped[int]
    """How many matched at the beginning."""
    done: Mapped[int] = mapped_column(server_default="0")
    refused: Mapped[int] = mapped_column(server_default="0")
    state: Mapped[str]
    """`running`, `stopping`, `stopped`, `finished` or `failed`."""
    started_at: Mapped[datetime] = mapped_column(server_default=func.now())
    seen_at: Mapped[datetime] = mapped_column(server_default=func.now())
    """When its last step was made."""
    ended_at: Mapped[datetime | None]
