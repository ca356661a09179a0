"""Effects, which transitions owe; each try to run one; the circuits of the services that they call."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import (
    CheckConstraint,
    ForeignKey,
    Identity,
    Index,
    Integer,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from db.models.base import Base, one_of
from db.states import EffectState, TryResult


class Effect(Base):
    """A follow-up that a transition owes: one row, one kind, one Celery task."""

    __tablename__ = "effects"
    __table_args__ = (
        one_of("state", EffectState),
        CheckConstraint("(state = 'running') = (lease_until IS NOT NULL)", name="running_has_lease"),
        CheckConstraint("(state = 'done') = (done_at IS NOT NULL)", name="done_has_time"),
        UniqueConstraint("sequence"),
        Index(None, "attempt_id"),
        Index(None, "created_at"),
        Index(None, "state", "created_at"),
        Index(None, "kind", "created_at"),
        Index("ix_effects_due", "kind", "due_at", postgresql_where=text("state = 'pending'")),
        Index("ix_effects_pending", "kind", "created_at", postgresql_where=text("state = 'pending'")),
        Index("ix_effects_offered", "kind", "offered_until", postgresql_where=text("state = 'pending'")),
        Index("ix_effects_leased", "lease_until", postgresql_where=text("state = 'running'")),
        Index("ix_effects_target", "target", "sequence", postgresql_where=text("target IS NOT NULL")),
        Index(
            "uq_effects_running_target",
            "target",
            unique=True,
            postgresql_where=text("state = 'running' AND target IS NOT NULL"),
        ),
        Index(
            "ix_effects_order_key", "order_key", "sequence", postgresql_where=text("order_key IS NOT NULL")
        ),
        Index(
            "uq_effects_running_order_key",
            "order_key",
            unique=True,
            postgresql_where=text("state = 'running' AND order_key IS NOT NULL"),
        ),
        Index(None, "cause", "created_at", postgresql_where=text("cause IS NOT NULL")),
        Index(None, "cause", "state", "failed_at", postgresql_where=text("cause IS NOT NULL")),
        Index("ix_effects_user_id_without_attempt", "user_id", postgresql_where=text("attempt_id IS NULL")),
        Index(None, "event_id", postgresql_where=text("event_id IS NOT NULL")),
        Index(None, "subscriber", "state", postgresql_where=text("subscriber IS NOT NULL")),
        Index(None, "subscriber", "created_at", postgresql_where=text("subscriber IS NOT NULL")),
        Index(
            "ix_effects_owed_cascades",
            "user_id",
            postgresql_where=text("kind = 'cascade_decline' AND state IN ('pending', 'running')"),
        ),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    sequence: Mapped[int] = mapped_column(Identity(always=True))
    """Of two effects on one target, or with one order key, the newer one has the greater number: who inserts holds
    the learner's lock."""
    kind: Mapped[str]
    """One of `worker.kinds`; also the name of its Celery task after `effects.`."""
    state: Mapped[str]
    attempt_id: Mapped[UUID | None] = mapped_column(ForeignKey("attempts.id"))
    """Null only where it delivers an event that is about no attempt."""
    user_id: Mapped[str | None]
    target: Mapped[str | None]
    """What it changes on the other side, where only the newest effect counts; null where each effect counts."""
    order_key: Mapped[str | None]
    """Effects that share it run one at a time, oldest first; null for an effect that waits for no other."""
    payload: Mapped[dict[str, Any]]
    source: Mapped[str]
    """With `command_id`, names the command that it follows from."""
    command_id: Mapped[str]
    tries: Mapped[int] = mapped_column(Integer, server_default="0")
    tries_forgiven: Mapped[int] = mapped_column(Integer, server_default="0")
    """How many tries do not count for the delay, because a person has asked for a retry since."""
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    due_at: Mapped[datetime] = mapped_column(server_default=func.now())
    offered_until: Mapped[datetime | None]
    """The relay does not offer it to a worker again before this time."""
    lease_until: Mapped[datetime | None]
    retrying_since: Mapped[datetime | None]
    """When the first try began, or the first one since a person's retry."""
    last_error: Mapped[str | None]
    done_at: Mapped[datetime | None]
    dropped_at: Mapped[datetime | None]
    """When it was superseded or cancelled."""
    event_id: Mapped[UUID | None]
    """The event that it delivers. No foreign key: the log may be pruned before its deliveries are."""
    subscriber: Mapped[str | None]
    """To whom it delivers the event."""
    traceparent: Mapped[str | None]
    """The trace of the command that it follows from (W3C Trace Context)."""
    failure_told: Mapped[bool | None]
    """Whether an event has told that it failed for good."""
    cause: Mapped[str | None]
    """Why its last try failed. Null where none did since it came to be owed, where it is done, and before revision
    0034."""
    failed_at: Mapped[datetime | None]
    """When that try ended."""


class Try(Base):
    """One run of an effect."""

    __tablename__ = "tries"
    __table_args__ = (
        one_of("result", TryResult),
        CheckConstraint("(result IS NULL) = (finished_at IS NULL)", name="finished_has_result"),
        Index("ix_tries_failed_at", "finished_at", postgresql_where=text("cause IS NOT NULL")),
    )

    effect_id: Mapped[UUID] = mapped_column(ForeignKey("effects.id", ondelete="CASCADE"), primary_key=True)
    number: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    sequence: Mapped[int | None]
    """Grows with each try on a target: the database's clock in microseconds, or more. None before revision 0004."""
    started_at: Mapped[datetime]
    finished_at: Mapped[datetime | None]
    result: Mapped[str | None]
    error: Mapped[str | None]
    cause: Mapped[str | None]
    """Why it failed. Null where it did not, and before revision 0035."""


class Circuit(Base):
    """A service that fails. Nobody calls it while its circuit is open. A service without a row works."""

    __tablename__ = "circuits"
    __table_args__ = (CheckConstraint("failures >= 0", name="failures"),)

    queue: Mapped[str] = mapped_column(primary_key=True)
    """The queue of the effects that call it."""
    failures: Mapped[int] = mapped_column(Integer)
    """Calls in a row that the service as a whole did not answer."""
    since: Mapped[datetime] = mapped_column(server_default=func.now())
    """When the first of them ended."""
    open_until: Mapped[datetime | None]
    """Not null while the circuit is open. After this time one call probes the service, and sets a later time."""
    reason: Mapped[str | None]
    """What the last of them said. Null before revision 0032."""
