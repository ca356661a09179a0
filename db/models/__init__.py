"""The tables. Their constraints repeat the rules that must never break."""

from db.models.base import Base
from db.models.effects import Circuit, Effect, EffectState, Try, TryResult
from db.models.messages import HandledCommand, InboxEntry, QuarantinedMessage, Shard
from db.models.record import Attempt, Course, Exam, Learner, Transition

__all__ = [
    "Attempt",
    "Base",
    "Circuit",
    "Course",
    "Effect",
    "EffectState",
    "Exam",
    "HandledCommand",
    "InboxEntry",
    "Learner",
    "QuarantinedMessage",
    "Shard",
    "Transition",
    "Try",
    "TryResult",
]
