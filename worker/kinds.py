"""The kinds of effect: one entry for each, from which everything else about a kind follows.

An effect is a follow-up that a change owes, such as a mail. To add a kind, write the type of its payload and its
entry here, say in `owed_by` when it is owed, and write its action in `worker/effects`. Tasks, queues, routes,
labels, circuits, limits of calls and the choices of the command line follow from the entry. An entry that is
incomplete is refused when this module is imported.

Example:
    >>> payload = SetCreditStatus(exam_id="7", user_id="42", course_id="phys", content_id="x", status="submitted")
    >>> kind = kind_of(payload)
    >>> print(kind, kind.entry.queue, task_name(kind))
    set_credit_status invigilator.effects.credit effects.set_credit_status
    >>> kind.entry.target.of(payload)
    'credit:42/phys/x'
    >>> kind.entry.subject(payload)
    'credit submitted · exam 7 · learner 42'

    A payload is stored as JSON. A newer release may have added a field to it, which this one does not know:

    >>> ids = {"exam_id": "7", "user_id": "42", "course_id": "phys", "content_id": "x"}
    >>> stored = {**ids, "status": "failed", "added_later": 1}
    >>> kind.entry.read(stored).status
    'failed'
"""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from functools import lru_cache
from typing import Any, Self
from urllib.parse import quote
from uuid import UUID

from worker.kind_entry import EachOwed, Entry, InOrder, LatestWins, Payload, check
from worker.rules.decisions import Decision, Removal
from worker.rules.values import Exam

MAX_TARGET_CHARS = 600  # an index entry holds 2,700 bytes at most; ids may be 255 characters each


QUOTED_IDS = 4096
"""How many ids are remembered as they stand in targets. Those of courses come again and again."""


class Service(StrEnum):
    """Who is called. Each is a field of `worker.lms.connect.Services`, with a circuit and a limit of calls.

    Of the webhooks each endpoint has a circuit and a limit of its own.
    """

    CREDIT = "credit"
    INSTRUCTOR = "instructor"
    MAILER = "mailer"
    WEBHOOKS = "webhooks"


# --- payloads ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class SetCreditStatus(Payload):
    """The learner's credit for the content is to have this status."""

    status: str
    """satisfied, submitted, failed or declined."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoveCreditStatus(Payload):
    """The learner is to have no credit for the content."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CascadeDecline(Payload):
    """The siblings of the exam are to be declined for the learner."""

    at: str | None = None
    """When the attempt that started the cascade changed, in ISO 8601: the siblings change at the same time.

    None in an effect that an older release has owed.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class SendStatusEmail(Payload):
    """The learner is to be told of the attempt's status."""

    status: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DeleteStudentAttempt(Payload):
    """The learner's work on the content is to be reset."""

    requested_by: str | None = None
    """Who asked for it, as the command said."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliverEvent(Payload):
    """A webhook is to get an event. The event may be about no attempt."""

    exam_id: str = ""
    user_id: str = ""
    course_id: str = ""
    content_id: str = ""
    webhook: str
    """The name of its table in the file of subscriptions."""
    type: str
    """That of the event."""
    to_status: str | None = None
    order: str = "none"
    """As the file says: none or learner."""


def _delivery_label(payload: DeliverEvent) -> str:
    what = payload.type.split(".")[-2]
    return " ".join(filter(None, ("webhook", payload.webhook, "·", what, payload.to_status)))


def _delivery_order(payload: DeliverEvent, _: UUID | None) -> str | None:
    in_order = payload.order == "learner" and payload.user_id
    return f"webhook:{payload.webhook}/{payload.user_id}" if in_order else None


def credit_target(user_id: str, course_id: str, content_id: str) -> str:
    """The target of both kinds of credit effects: the credit of (user, course, content). Injective."""
    target = f"credit:{_quoted(user_id)}/{_quoted(course_id)}/{_quoted(content_id)}"
    if len(target) > MAX_TARGET_CHARS:
        return "credit:" + hashlib.sha256(target.encode()).hexdigest()
    return target


@lru_cache(QUOTED_IDS)
def _quoted(part: str) -> str:
    return quote(part, safe=":+@,;=")


def _credit_of(payload: Payload) -> str:
    return credit_target(payload.user_id, payload.course_id, payload.content_id)


# --- the table -----------------------------------------------------------------------------------------


class EffectKind(StrEnum):
    """What an effect does. `entry` says everything about a kind; its value is its name."""

    entry: Entry[Any]

    SET_CREDIT_STATUS = Entry(
        name="set_credit_status",
        queue="invigilator.effects.credit",
        payload=SetCreditStatus,
        label=lambda payload: f"credit {payload.status}",
        service=Service.CREDIT,
        target=LatestWins(_credit_of),
        action="worker.effects.credit:SetStatus",
    )
    REMOVE_CREDIT_STATUS = Entry(
        name="remove_credit_status",
        queue="invigilator.effects.credit",
        payload=RemoveCreditStatus,
        label=lambda _: "credit removed",
        service=Service.CREDIT,
        target=LatestWins(_credit_of),
        action="worker.effects.credit:RemoveStatus",
    )
    CASCADE_DECLINE = Entry(
        name="cascade_decline",
        queue="invigilator.effects.cascade",
        payload=CascadeDecline,
        label=lambda _: "cascade decline",
        service=None,
        target=EachOwed(),
        action="worker.effects.cascade:Decline",
    )
    SEND_STATUS_EMAIL = Entry(
        name="send_status_email",
        queue="invigilator.effects.email",
        payload=SendStatusEmail,
        label=lambda payload: f"mail {payload.status}",
        service=Service.MAILER,
        target=InOrder(lambda _, attempt_id: f"mail:{attempt_id}"),
        action="worker.effects.mail:SendStatus",
    )
    DELETE_STUDENT_ATTEMPT = Entry(
        name="delete_student_attempt",
        queue="invigilator.effects.instructor",
        payload=DeleteStudentAttempt,
        label=lambda _: "delete student attempt",
        service=Service.INSTRUCTOR,
        target=EachOwed(),
        action="worker.effects.instructor:DeleteStudentAttempt",
    )

    DELIVER_EVENT = Entry(
        name="deliver_event",
        queue="invigilator.effects.webhooks",
        payload=DeliverEvent,
        label=_delivery_label,
        service=Service.WEBHOOKS,
        target=InOrder(_delivery_order),
        action="worker.effects.webhooks:Deliver",
    )

    def __new__(cls, entry: Any) -> Self:  # mypy takes a look-up by name for a call of this, too
        kind = str.__new__(cls, entry.name)
        kind._value_ = entry.name
        kind.entry = entry
        return kind


check(kind.entry for kind in EffectKind.__members__.values())

QUEUES: Mapping[str, str] = {kind: kind.entry.queue for kind in EffectKind}
"""The queue of each kind."""

_KINDS = {kind.entry.payload: kind for kind in EffectKind}


def kind_of(payload: Payload) -> EffectKind:
    """The kind of an effect with such a payload."""
    return _KINDS[type(payload)]


def task_name(kind: str) -> str:
    """The name of the Celery task of a kind."""
    return f"effects.{kind}"


# --- when an effect is owed ------------------------------------------------------------------------------


def owed_by(decision: Decision, exam: Exam, user_id: str, at: datetime) -> Iterator[Payload]:
    """What an applied decision on a learner's attempt owes, in the order in which it is owed.

    Parameters:
        at: when the attempt changed.
    """
    about = _about(exam, user_id)
    if decision.credit is not None:
        yield SetCreditStatus(**about, status=decision.credit)
    if decision.cascade:
        yield CascadeDecline(**about, at=at.isoformat())
    if decision.email:
        yield SendStatusEmail(**about, status=str(decision.status))


def owed_by_removal(
    removal: Removal, exam: Exam, user_id: str, requested_by: str | None
) -> Iterator[Payload]:
    """What the removal of a learner's attempt owes, in the order in which it is owed."""
    about = _about(exam, user_id)
    for course_id, content_id in removal.remove_credit:
        yield RemoveCreditStatus(**{**about, "course_id": course_id, "content_id": content_id})
    if removal.delete_student_attempt:
        yield DeleteStudentAttempt(**about, requested_by=requested_by)


def _about(exam: Exam, user_id: str) -> dict[str, str]:
    return {
        "exam_id": exam.exam_id,
        "user_id": user_id,
        "course_id": exam.course_id,
        "content_id": exam.content_id,
    }
