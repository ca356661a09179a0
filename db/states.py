"""The states of effects, and how tries end. They are apart from the tables, because workers need no ORM."""

from enum import StrEnum


class EffectState(StrEnum):
    """Where an effect stands."""

    PENDING = "pending"  # owed, and run when due. Next: running, superseded, cancelled; folded cascade: done
    RUNNING = "running"  # a worker has it until its lease ends. Next: done, pending, failed, superseded
    DONE = "done"  # the other side has it. The end
    FAILED = "failed"  # refused, or tried for too long. Next: pending or cancelled, by a person
    SUPERSEDED = "superseded"  # a newer effect on the same target took its place. The end
    CANCELLED = "cancelled"  # a person said no. Next: pending, by a person


class TryResult(StrEnum):
    """How a try ended; null while it runs."""

    DONE = "done"
    LOGGED = "logged"  # no service is configured: the call is only in the log, and the effect is done
    RETRY = "retry"  # a transient failure; it will be tried again
    FAILED = "failed"  # a permanent failure, or a transient one for too long
    LOST = "lost"  # its worker never reported back before the lease ended
    FOLDED = "folded"  # a cascade that the handler finished while a worker had it
