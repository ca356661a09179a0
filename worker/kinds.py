"""The five kinds of effect: their queues, what they carry, and how they are shown."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from urllib.parse import quote


class EffectKind(StrEnum):
    """What an effect does; also the name of its Celery task after `effects.`."""

    SET_CREDIT_STATUS = "set_credit_status"
    REMOVE_CREDIT_STATUS = "remove_credit_status"
    CASCADE_DECLINE = "cascade_decline"
    SEND_STATUS_EMAIL = "send_status_email"
    DELETE_STUDENT_ATTEMPT = "delete_student_attempt"


QUEUES: Mapping[str, str] = {
    EffectKind.SET_CREDIT_STATUS: "invigilator.effects.credit",
    EffectKind.REMOVE_CREDIT_STATUS: "invigilator.effects.credit",
    EffectKind.CASCADE_DECLINE: "invigilator.effects.cascade",
    EffectKind.SEND_STATUS_EMAIL: "invigilator.effects.email",
    EffectKind.DELETE_STUDENT_ATTEMPT: "invigilator.effects.instructor",
}

SERVICES = frozenset(QUEUES.values()) - {QUEUES[EffectKind.CASCADE_DECLINE]}
"""The queues whose effects call the other side, each a service with a circuit and a limit of calls."""

MAX_TARGET_CHARS = 600  # an index entry holds 2,700 bytes at most; ids may be 255 characters each


@dataclass(frozen=True, slots=True)
class Payload:
    """What an effect needs to run, fixed when it came to be owed. Ids only, no names or addresses."""

    exam_id: str
    user_id: str
    course_id: str
    content_id: str
    status: str | None = None
    """The credit status, or the attempt's status that the mail is about."""
    requested_by: str | None = None


def credit_target(user_id: str, course_id: str, content_id: str) -> str:
    """The target of both kinds of credit effects: the credit of (user, course, content). Injective."""
    parts = [quote(part, safe=":+@,;=") for part in (user_id, course_id, content_id)]
    target = "credit:" + "/".join(parts)
    if len(target) > MAX_TARGET_CHARS:
        return "credit:" + hashlib.sha256(target.encode()).hexdigest()
    return target


def subject(kind: str, payload: Payload) -> str:
    """What an effect is about, such as `credit submitted · exam 7 · learner 42`."""
    what = {
        EffectKind.SET_CREDIT_STATUS: f"credit {payload.status}",
        EffectKind.REMOVE_CREDIT_STATUS: "credit removed",
        EffectKind.CASCADE_DECLINE: "cascade decline",
        EffectKind.SEND_STATUS_EMAIL: f"mail {payload.status}",
        EffectKind.DELETE_STUDENT_ATTEMPT: "delete student attempt",
    }[EffectKind(kind)]
    return f"{what} · exam {quoted(payload.exam_id)} · learner {quoted(payload.user_id)}"


def label(kind: str, payload: Payload, number: int) -> str:
    """What a person reads in Flower, such as `credit submitted · exam 7 · learner 42 · try 3`."""
    return f"{subject(kind, payload)} · try {number}"


def quoted(sent: str) -> str:
    """What a sender chose, so that no line of the log and no label can be forged with it."""
    return sent if sent.isprintable() and not set(sent) & set(" ·'\"") else repr(sent)
