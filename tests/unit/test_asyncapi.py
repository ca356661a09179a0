"""docs/asyncapi.yaml: it is current, whole, and says of a message what the worker says."""

import json
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import jsonschema
import pytest
import yaml

from events.cloudevent import Event, as_object
from events.commands import COMMAND_TYPES
from events.event_types import (
    EVENT_TYPES,
    AttemptCreated,
    AttemptRemoved,
    AttemptStatusChanged,
    CommandName,
    CommandNotApplied,
    EffectFailed,
    EffectRecovered,
    EventData,
    MessageQuarantined,
    WebhookTest,
)
from events.signing import sign
from events.vocabulary import Outcome, OutcomeCode, QuarantineCode, Status
from invigilator.asyncapi.__main__ import FILE, main
from invigilator.asyncapi.messages import OPEN_EDX_TYPES
from tests.described import DOCUMENT, as_described
from tests.unit.events import messages
from tests.unit.events.test_commands import BAD, GOOD
from tests.unit.events.test_schemas import worker_accepts
from worker.feeds.openedx import BUS_TYPE, WORDS
from worker.lms.webhooks import trial_delivery

NOW = datetime(2026, 3, 1, 9, tzinfo=UTC)


def test_the_committed_document_is_current(tmp_path: Path) -> None:
    """Run `make schemas` when this fails."""
    main([str(tmp_path / "asyncapi.yaml")])
    committed = Path(__file__).parents[2] / FILE
    assert (tmp_path / "asyncapi.yaml").read_text() == committed.read_text()


def references(node: Any) -> Iterator[str]:
    if isinstance(node, list | dict):
        for part in node.values() if isinstance(node, dict) else node:
            yield from references(part)
    if isinstance(node, dict) and "$ref" in node:
        yield node["$ref"]


def test_every_reference_leads_somewhere() -> None:
    found = set(references(DOCUMENT))
    assert found
    for reference in found:
        node = DOCUMENT
        for step in reference.removeprefix("#/").split("/"):
            node = node[step]


def test_every_component_is_used() -> None:
    components = {
        f"#/components/{kind}/{name}" for kind, named in DOCUMENT["components"].items() for name in named
    }
    assert components == {one for one in references(DOCUMENT) if one.startswith("#/components/")}


@pytest.mark.parametrize(
    ("channel", "types"),
    [
        ("commands", COMMAND_TYPES),
        ("feed", EVENT_TYPES),
        ("webhook", {*EVENT_TYPES, WebhookTest.event_type}),
    ],
)
def test_a_channel_has_a_message_of_each_type(channel: str, types: Iterable[str]) -> None:
    assert set(DOCUMENT["channels"][channel]["messages"]) - {"signed"} == set(types)


# Commands


@pytest.mark.parametrize("type_", COMMAND_TYPES)
def test_a_command_fits_its_message_and_no_other(type_: str) -> None:
    command = messages.event(type_)
    assert [name for name in COMMAND_TYPES if as_described("commands", name).is_valid(command)] == [type_]


def has_whole_float(node: Any) -> bool:
    """Whether a number such as 7.0 is in it. To draft 7 that is an integer, and to the worker it is none."""
    if isinstance(node, dict | list):
        return any(map(has_whole_float, node.values() if isinstance(node, dict) else node))
    return isinstance(node, float) and node.is_integer()


def judged_alike(type_: str, message: dict[str, Any]) -> None:
    described = as_described("commands", type_).is_valid(message)
    worker = worker_accepts(type_, messages.encode(message))
    assert described == worker, f"document: {described}, worker: {worker}: {message}"


DATA = [case for case in GOOD + [case[:2] for case in BAD] if not has_whole_float(case[1])]


@pytest.mark.parametrize(("type_", "fields"), DATA)
def test_the_document_judges_data_as_the_worker_does(type_: str, fields: dict[str, Any]) -> None:
    judged_alike(type_, messages.event_with(type_, **fields))


@pytest.mark.parametrize(
    "attributes",
    [
        {"time": "2026-02-29T09:00:00Z"},
        {"time": "2028-02-29T09:00:00Z"},
        {"source": ""},
        {"source": ...},
        {"id": 7},
        {"id": "x" * 256},
        {"specversion": "1.1"},
        {"datacontenttype": "application/json; charset=utf-8"},
        {"datacontenttype": "text/plain"},
        {"traceparent": "anything"},
        {"data": None},
        {"type": "exam.attempt.update-status.v2"},
    ],
)
def test_the_document_judges_attributes_as_the_worker_does(attributes: dict[str, Any]) -> None:
    judged_alike("exam.attempt.update-status.v1", messages.event(**attributes))


def test_a_signed_command_on_redis() -> None:
    signed = {"payload": "e30=", "signature": sign(b"{}", "k" * 32)}
    schema = as_described("commands", "signed")
    assert schema.is_valid(signed)
    assert not schema.is_valid(signed | {"signature": "no"})
    assert not schema.is_valid(signed | {"more": 1})


# Events

ATTEMPT = {
    "attempt_code": "acme-7-42-1",
    "exam_id": "7",
    "course_id": "phys",
    "content_id": "b7",
    "user_id": "42",
    "external_id": None,
    "taking_as_proctored": True,
    "is_sample_attempt": False,
    "status": Status.SUBMITTED,
    "version": 2,
    "at": NOW,
    "cascaded_from": None,
    "command": CommandName(source="/lms/acme", id="1"),
}
EXAMPLES = [
    AttemptCreated(**ATTEMPT),
    AttemptStatusChanged(
        **ATTEMPT,
        from_status=Status.STARTED,
        to_status=Status.SUBMITTED,
        started_at=NOW,
        completed_at=None,
    ),
    AttemptRemoved(**ATTEMPT, requested_by=None),
    CommandNotApplied(
        source="/lms/acme",
        id="1",
        type="exam.attempt.create.v1",
        outcome=Outcome.REJECTED,
        code=OutcomeCode.ATTEMPT_EXISTS,
        detail="there is one",
        user_id="42",
        exam_id="7",
    ),
    MessageQuarantined(quarantine_id=1, code=QuarantineCode.NOT_JSON, source=None, id=None, size=7),
    EffectFailed(
        effect_id=UUID(int=1), kind="set_credit_status", attempt_code="a", reason="refused", tries=3
    ),
    EffectRecovered(effect_id=UUID(int=1), kind="set_credit_status", attempt_code="a", reason=None, tries=4),
]


def published(data: EventData, *, user_id: str | None = "42") -> dict[str, Any]:
    event = Event(
        id=UUID(int=7),
        position=9,
        type=data.event_type,
        time=NOW,
        subject=None,
        user_id=user_id,
        traceparent=None,
        data=data.model_dump(mode="json"),
    )
    return as_object(event, "/invigilator/main")


def test_there_is_an_example_of_each_type() -> None:
    assert {type(example) for example in EXAMPLES} == set(EVENT_TYPES.values())


@pytest.mark.parametrize("channel", ["feed", "webhook"])
@pytest.mark.parametrize("data", EXAMPLES, ids=lambda data: data.event_type)
def test_an_event_fits_its_message_and_no_other(channel: str, data: EventData) -> None:
    event = published(data)
    assert [name for name in EVENT_TYPES if as_described(channel, name).is_valid(event)] == [data.event_type]


@pytest.mark.parametrize("data", EXAMPLES, ids=lambda data: data.event_type)
def test_what_is_no_event_does_not_fit(data: EventData) -> None:
    event, schema = published(data, user_id=None), as_described("feed", data.event_type)
    schema.validate(event)
    for missing in event:
        with pytest.raises(jsonschema.ValidationError):
            schema.validate({name: value for name, value in event.items() if name != missing})
    for missing, field in type(data).model_fields.items():
        if not field.is_required():
            continue
        rest = {name: value for name, value in event["data"].items() if name != missing}
        with pytest.raises(jsonschema.ValidationError):
            schema.validate(event | {"data": rest})
    assert not schema.is_valid(event | {"sequence": "9"})
    assert not schema.is_valid(event | {"id": 7})
    assert not schema.is_valid(event | {"partitionkey": 42})
    # A reader ignores what it does not know
    assert schema.is_valid(event | {"new": 1, "data": event["data"] | {"new": 1}})


def test_the_attributes_of_an_event_are_those_of_the_document() -> None:
    every = Event(UUID(int=7), 9, "t", NOW, "code", "42", "00-0-0-00", {})
    described = set(DOCUMENT["components"]["schemas"]["Event"]["properties"])
    assert described | {"data", "sequence"} == set(as_object(every, "/invigilator/main"))


def test_a_trial_of_a_webhook_fits_its_message() -> None:
    event = json.loads(trial_delivery("acme", "/invigilator/main").body)
    as_described("webhook", event["type"]).validate(event)


def test_the_document_is_yaml_that_is_safe_to_load() -> None:
    text = (Path(__file__).parents[2] / FILE).read_text()
    assert text.isascii()
    assert yaml.safe_load(text) == DOCUMENT


def test_the_types_of_the_open_edx_bus_are_those_that_are_published() -> None:
    assert set(OPEN_EDX_TYPES) == {BUS_TYPE.format(word) for word in (*WORDS.values(), "reset")}
