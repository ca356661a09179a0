"""What an action gets."""

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Generic

from sqlalchemy import Engine

from db.deliveries import Owed
from db.effects import Claim
from events.cloudevent import source_of
from worker.commands.handler import Handler
from worker.effects.slots import Slots
from worker.kind_entry import P
from worker.lms.connect import Services
from worker.lms.mail_templates import MailTemplates
from worker.lms.ports import CallKey, Deadline, Origin
from worker.rules.retry import RetryPolicy


@dataclass(frozen=True, slots=True)
class Tools:
    """What the actions of one process share."""

    engine: Engine
    services: Services
    handler: Handler
    retry: RetryPolicy
    lease_s: float
    call_timeout_s: float
    slots: Slots
    mail_templates: MailTemplates = field(default_factory=MailTemplates)
    event_source: str = source_of("main")


@dataclass(frozen=True, slots=True)
class Run(Generic[P]):
    """One try of one effect."""

    claim: Claim
    payload: P
    tools: Tools
    deadline: Deadline
    owed: Owed | None = None
    """What it brings to whom, if it is a delivery."""

    @property
    def key(self) -> CallKey:
        """What makes the call recognisable, and says from what it follows."""
        return CallKey(self.claim.id, self.claim.sequence, self.origin)

    @property
    def origin(self) -> Origin:
        """The command that the effect follows from, and the attempt."""
        claim = self.claim
        assert claim.attempt_code is not None, "only a delivery is about no attempt"
        return Origin(claim.source, claim.command_id, claim.attempt_code, claim.traceparent)


class Recorded(Enum):
    """Who records that a try has succeeded."""

    BY_ACTION = "by the action"  # it has done so, in a transaction of its own
    BY_RUNNER = "by the runner"  # which does so next


Action = Callable[[Run[Any]], Recorded]
"""Carries out a try. Returns who records its success.

An entry of `worker.kinds` names a class without arguments, of which each runner makes one for itself.

Raises `Transient` or `Permanent`; anything else counts as transient.
"""
