"""The tables. Their constraints repeat the rules that must never break."""

from db.models.base import Base
from db.models.effects import Circuit, Effect, EffectState, Try, TryResult
from db.models.events import Event, EventLog, Subscriber
from db.models.messages import HandledCommand, InboxEntry, QuarantinedMessage, Shard
from db.models.record import Attempt, Course, Exam, Learner, Transition

__all__ = [
    "Attempt",
    "Base",
    "Circuit",
    "Course",
    "Effect",
    "EffectState",
    "Event",
    "EventLog",
    "Exam",
    "HandledCommand",
    "InboxEntry",
    "Learner",
    "QuarantinedMessage",
    "Shard",
    "Subscriber",
    "Transition",
    "Try",
    "TryResult",
]
