"""What an effect runs with, and how its try ends."""

from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import Engine

from db.effects import Claim
from events.errors import InvigilatorError
from worker.commands.handler import Handler
from worker.effects.slots import Slots
from worker.kinds import Payload
from worker.lms.connect import Services
from worker.lms.ports import CallKey, Deadline
from worker.rules.retry import RetryPolicy


class TryFailedError(InvigilatorError):
    """A try has failed and is recorded; its task raises this so that Flower shows FAILURE and the reason."""

    code = "try_failed"


class TryAgainError(TryFailedError):
    """The same, and the effect is still owed: it will be offered again by itself. Flower shows RETRY."""

    code = "try_again"


@dataclass(frozen=True, slots=True)
class Tools:
    """What the effects of one process run with."""

    engine: Engine
    services: Services
    handler: Handler
    retry: RetryPolicy
    lease_s: float
    call_timeout_s: float
    slots: Slots


@dataclass(frozen=True, slots=True)
class Run:
    """One try of one effect."""

    claim: Claim
    payload: Payload
    tools: Tools
    deadline: Deadline

    @property
    def key(self) -> CallKey:
        """What makes a repeated call recognisable on the other side."""
        return CallKey(self.claim.id, self.claim.sequence)


Action = Callable[[Run], bool]
"""Carries out a try. Returns whether it has recorded its own success already; if not, the runner will.

Raises `Transient` or `Permanent`; anything else counts as transient.
"""
