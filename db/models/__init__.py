"""The tables. Their constraints repeat the rules that must never break."""

from db.models.acts import Act, ActTarget, BulkAct
from db.models.base import Base
from db.models.effects import Circuit, Effect, Try
from db.models.events import Event, EventLog, Subscriber
from db.models.messages import HandledCommand, InboxEntry, QuarantinedMessage, Resharding, Shard
from db.models.operations import Cause, Pause, Process, Pruned, Sample, Total
from db.models.record import Attempt, Course, Exam, Learner, Transition

__all__ = [
    "Act",
    "ActTarget",
    "Attempt",
    "Base",
    "BulkAct",
    "Cause",
    "Circuit",
    "Course",
    "Effect",
    "Event",
    "EventLog",
    "Exam",
    "HandledCommand",
    "InboxEntry",
    "Learner",
    "Pause",
    "Process",
    "Pruned",
    "QuarantinedMessage",
    "Resharding",
    "Sample",
    "Shard",
    "Subscriber",
    "Total",
    "Transition",
    "Try",
]
