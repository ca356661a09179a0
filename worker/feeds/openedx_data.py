"""Writes what an Open edX site's event bus tells of an attempt: `ExamAttemptData` of `openedx-events`, in Avro."""

from collections.abc import Callable
from functools import partial
from io import BytesIO
from typing import Any

from fastavro import parse_schema, schemaless_writer
from opaque_keys import InvalidKeyError, OpaqueKey
from opaque_keys.edx.keys import CourseKey, UsageKey
from pydantic import BaseModel, ConfigDict

from db.people import LearnerContact

MAX_LONG = 2**63 - 1  # of Avro


class ToldAttempt(BaseModel):
    """What the bus needs of the data of an event about an attempt.

    It has no other field, because a newer release may write statuses that this one does not know.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)

    user_id: str
    exam_id: str
    course_id: str
    content_id: str
    requested_by: str | None = None


# --- what the bus can carry --------------------------------------------------------------------------------


def is_user_number(user_id: str) -> bool:
    """Return whether the bus can carry a user's id."""
    # Only as the number is written: "07" is another learner than "7".
    is_number = user_id.isascii() and user_id.isdecimal() and str(int(user_id)) == user_id
    return is_number and int(user_id) <= MAX_LONG


def _is_key(read: Callable[[str], OpaqueKey], text: str) -> bool:
    try:
        read(text)
    except InvalidKeyError:
        return False
    return True


_NEEDED: tuple[tuple[str, Callable[[str], bool], str], ...] = (
    ("user_id", is_user_number, "integer"),
    ("content_id", partial(_is_key, UsageKey.from_string), "usage key"),
    ("course_id", partial(_is_key, CourseKey.from_string), "course key"),
)
"""The fields for which the bus has types of its own. What does not fit them, its consumers drop."""


def why_not(attempt: ToldAttempt) -> str | None:
    """Return which field of an attempt the bus cannot carry, and why. None when it can carry all."""
    unfit = (f"{name} is no {what}" for name, fits, what in _NEEDED if not fits(getattr(attempt, name)))
    return next(unfit, None)


# --- in Avro -----------------------------------------------------------------------------------------------


def _user(user: LearnerContact) -> dict[str, Any]:
    pii = {"username": user.username, "email": user.email, "name": user.full_name or ""}
    return {"id": int(user.user_id), "is_active": True, "pii": pii}


def _record(name: str, /, **types: Any) -> dict[str, Any]:
    fields = [{"name": one, "type": kind} for one, kind in types.items()]
    return {"name": name, "type": "record", "fields": fields}


def schema(event_type: str) -> dict[str, Any]:
    """Return the Avro schema of the data of a type of the bus.

    A test compares it with the one that `openedx-events` makes of its own classes.
    """
    pii = _record("UserPersonalData", username="string", email="string", name="string")
    attempt = _record(
        "ExamAttemptData",
        student_user=_record("UserData", id="long", is_active="boolean", pii=pii),
        course_key="string",
        usage_key="string",
        exam_type="string",
    )
    attempt["fields"].append({"name": "requesting_user", "type": ["null", "UserData"], "default": None})
    doc = "Avro Event Format for CloudEvents created with openedx_events/schema"
    return _record("CloudEvent", exam_attempt=attempt) | {"doc": doc, "namespace": event_type}


_SCHEMA = parse_schema(schema("any"))  # the names of types do not reach the bytes


def event_data(
    attempt: ToldAttempt, exam_type: str, learner: LearnerContact, requester: LearnerContact
) -> bytes:
    """Return the data of an event in Avro.

    Parameters:
        attempt: one that the bus can carry.
        exam_type: practice, proctored or timed.
        learner: whose attempt it is.
        requester: who asked for the change.
    """
    record = {
        "student_user": _user(learner),
        "course_key": attempt.course_id,
        "usage_key": attempt.content_id,
        "exam_type": exam_type,
        "requesting_user": _user(requester),
    }
    written = BytesIO()
    schemaless_writer(written, _SCHEMA, {"exam_attempt": record})
    return written.getvalue()
