"""A kind of effect is complete, or refused when the table is made."""

from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any
from uuid import UUID

import pytest

from worker.kind_entry import EachOwed, Entry, InOrder, LatestWins, Payload, check


class Service(StrEnum):
    """Services of a table for a test."""

    PROCTORING = "proctoring"
    OTHER = "other"


@dataclass(frozen=True, slots=True, kw_only=True)
class NotifyProctor(Payload):
    """A payload that adds nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OtherPayload(Payload):
    """Another one."""


class Undecorated(Payload):
    """It would have the fields of its parent, whatever it declares."""

    more: str


COMPLETE: dict[str, Any] = {
    "name": "notify_proctor",
    "queue": "invigilator.effects.proctoring",
    "payload": NotifyProctor,
    "label": lambda _: "notify proctor",
    "service": Service.PROCTORING,
    "target": EachOwed(),
    "action": "worker.effects.proctoring:Notify",
}
OTHER = {**COMPLETE, "name": "other", "payload": OtherPayload}


def test_a_complete_entry_is_taken() -> None:
    entry = Entry(**COMPLETE)
    check([entry, Entry(**OTHER)])
    payload = NotifyProctor(exam_id="7", user_id="42", course_id="c", content_id="x")
    assert entry.subject(payload) == "notify proctor · exam 7 · learner 42"


@pytest.mark.parametrize(
    ("target", "state", "key"),
    [
        (EachOwed(), None, None),
        (InOrder(lambda one, attempt_id: f"{one.exam_id} {attempt_id}"), None, f"7 {UUID(int=1)}"),
        (LatestWins(lambda one: one.user_id), "42", None),
    ],
)
def test_a_target_names_a_state_or_an_order_or_neither(
    target: Any, state: str | None, key: str | None
) -> None:
    entry = Entry(**COMPLETE | {"target": target, "service": None})
    payload = NotifyProctor(exam_id="7", user_id="42", course_id="c", content_id="x")
    assert (entry.target.of(payload), entry.target.order_key(payload, UUID(int=1))) == (state, key)


def test_every_field_is_tried_here() -> None:
    assert list(COMPLETE) == [field.name for field in fields(Entry)]


@pytest.mark.parametrize("missing", COMPLETE)
def test_an_entry_without_a_field_is_refused(missing: str) -> None:
    with pytest.raises(TypeError, match=rf"missing 1 required keyword-only argument: '{missing}'"):
        Entry(**{name: value for name, value in COMPLETE.items() if name != missing})


@pytest.mark.parametrize(
    ("field", "value", "problem"),
    [
        ("name", "Notify Proctor", "name must be lower case, such as send_status_email"),
        ("queue", "proctoring", "queue must begin with invigilator.effects."),
        ("queue", "invigilator.effects.", "queue must begin with invigilator.effects."),
        ("payload", dict, "payload must be a frozen dataclass that inherits Payload"),
        ("payload", "NotifyProctor", "payload must be a frozen dataclass that inherits Payload"),
        ("payload", Undecorated, "payload must be a frozen dataclass that inherits Payload"),
        ("label", "notify", "label must be a function of the payload"),
        ("service", "proctoring", "service must be a Service"),
        ("target", None, "target must be EachOwed, InOrder or LatestWins"),
        ("action", "proctoring.notify", "action must be worker.effects.module:Class"),
    ],
)
def test_an_entry_with_a_wrong_field_is_refused(field: str, value: object, problem: str) -> None:
    with pytest.raises(ValueError, match=problem) as caught:
        Entry(**COMPLETE | {field: value})
    name = value if field == "name" else COMPLETE["name"]
    assert str(caught.value) == f"kind of effect {name!r}: {problem}"


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({"name": "notify_proctor"}, "another kind has this name"),
        ({"payload": NotifyProctor}, "another kind has this payload"),
        ({"service": Service.OTHER}, "its queue is that of another service"),
        ({"service": None}, "its queue is that of another service"),
        ({"queue": "invigilator.effects.other"}, "its service has another queue"),
    ],
)
def test_entries_that_do_not_go_together_are_refused(changed: dict[str, Any], problem: str) -> None:
    other = Entry(**OTHER | changed)
    with pytest.raises(ValueError, match=problem) as caught:
        check([Entry(**COMPLETE), other])
    assert str(caught.value) == f"kind of effect {other.name!r}: {problem}"
