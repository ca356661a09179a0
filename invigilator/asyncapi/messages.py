"""What messages hold: the messages and schemas of the AsyncAPI document.

Schemas are those of AsyncAPI, which is draft 7 of JSON Schema. To it 7.0 is an integer. docs/schemas has the
commands in a newer draft, and refuses it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, TypeAdapter
from pydantic.json_schema import models_json_schema

from events.cloudevent import POSITION_DIGITS
from events.commands import COMMAND_TYPES
from events.envelope import Envelope
from events.event_types import EVENT_TYPES, WebhookTest
from events.fields import Id
from events.signing import SIGNATURE_HEADER
from events.webhooks import ID_HEADER, TIMESTAMP_HEADER
from events.webhooks import SIGNATURE_HEADER as WEBHOOK_SIGNATURE_HEADER

Node = dict[str, Any]
"""A part of the document."""

SIGNED = "signed"
OPEN_EDX_TYPES = tuple(
    f"org.openedx.learning.exam.attempt.{what}.v1"
    for what in ("submitted", "verified", "rejected", "errored", "reset")
)

_ID: Sequence[Node] = TypeAdapter(Id).json_schema()["anyOf"]


def of_webhooks(event_type: str) -> str:
    """Return the name of the message that brings an event to a webhook."""
    return f"webhook.{event_type}"


def messages() -> Node:
    """Return every message by its name."""
    commands = {
        name: _cloudevent(name, model, "CommandEvent", _object({}, {SIGNATURE_HEADER: _signature()}))
        for name, model in COMMAND_TYPES.items()
    }
    events = {name: _cloudevent(name, model, "NumberedEvent") for name, model in EVENT_TYPES.items()}
    webhooks = {
        of_webhooks(name): _cloudevent(name, model, "NumberedEvent", _webhook_headers())
        for name, model in EVENT_TYPES.items()
    }
    test = _cloudevent(WebhookTest.event_type, WebhookTest, "Event", _webhook_headers())
    signals = {name: _signal(name) for name in OPEN_EDX_TYPES}
    return {
        **commands,
        SIGNED: _signed(),
        **events,
        **webhooks,
        of_webhooks(WebhookTest.event_type): test,
        **signals,
    }


def schemas() -> Node:
    """Return the schemas that messages refer to, by their names."""
    models = [
        (Envelope, "validation"),
        *((model, "validation") for model in COMMAND_TYPES.values()),
        *((model, "serialization") for model in (*EVENT_TYPES.values(), WebhookTest)),
    ]
    _, found = models_json_schema(models, ref_template="#/components/schemas/{model}")  # type: ignore[arg-type]
    of_models = {name: _as_draft_7(schema) for name, schema in found["$defs"].items()}
    return {
        "CommandEvent": of_models.pop(Envelope.__name__),
        "Event": _event(),
        "NumberedEvent": {"allOf": [_ref("Event"), _object({"sequence": _position()})]},
        "Id": {"anyOf": [*_ID]},
        **of_models,
    }


def _cloudevent(name: str, model: type[BaseModel], attributes: str, headers: Node | None = None) -> Node:
    own = _object({"type": {"const": name}, "data": _ref(model.__name__)})
    return {
        "name": name,
        "summary": (model.__doc__ or "").partition("\n")[0],
        **({} if headers is None else {"headers": headers}),
        "payload": {"allOf": [_ref(attributes), own]},
    }


def _event() -> Node:
    required = {
        "specversion": {"const": "1.0"},
        "id": _text("The same in every copy and replay.", format="uuid"),
        "source": _text("Which installation it was.", pattern="^/invigilator/"),
        "type": _text(),
        "time": _text("When it was handled. `at` in the data is when it happened.", format="date-time"),
        "datacontenttype": {"const": "application/json"},
    }
    optional = {
        "subject": _text("The code of the attempt."),
        "partitionkey": _text("The `user_id` of the learner."),
        "traceparent": _text("The trace of the command (W3C Trace Context)."),
    }
    return _object(required, optional)


def _position() -> Node:
    return _text(
        "The position in the log. It grows, and has leading zeros.", pattern=f"^[0-9]{{{POSITION_DIGITS}}}$"
    )


def _signed() -> Node:
    members = {"payload": _text("The event in base64.", contentEncoding="base64"), "signature": _signature()}
    return {
        "summary": "A signed command in an envelope. Only on Redis, where messages have no headers.",
        "contentType": "application/json",
        "payload": {**_object(members), "additionalProperties": False},
    }


def _signature() -> Node:
    return _text(
        "HMAC-SHA-256 of the exact body. Without a file of command keys nobody looks at it.",
        pattern="^[0-9a-f]{64}$",
    )


def _webhook_headers() -> Node:
    return _object(
        {
            ID_HEADER: _text("The `id` of the event.", format="uuid"),
            TIMESTAMP_HEADER: _text("Seconds since 1970 when it was sent.", pattern="^[0-9]+$"),
            WEBHOOK_SIGNATURE_HEADER: _text(
                "`v1,` and a signature in base64, of each live secret, with spaces."
            ),
        },
        {"traceparent": _text("That of the event.")},
    )


def _signal(name: str) -> Node:
    """Return an entry of the stream of an Open edX site."""
    fields = ("id", "source", "time", "minorversion", "sourcehost", "sourcelib")
    avro = _text("`exam_attempt` in Avro: `ExamAttemptData` of openedx-events.", contentEncoding="binary")
    return {
        "name": name,
        "summary": "The fields of an entry of the stream.",
        "contentType": "application/avro",
        "payload": _object(
            {"type": {"const": name}, **{field: _text() for field in fields}, "event_data": avro}
        ),
    }


def _as_draft_7(schema: Any) -> Any:
    """Return a schema of pydantic's without what draft 7 does not know: members beside `$ref` do not count there.

    The schema of an id stands in many places, and gets a name. Titles repeat the names of fields, and go.
    """
    if isinstance(schema, list):
        return [_as_draft_7(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    parts = {name: _as_draft_7(part) for name, part in schema.items() if not _is_title(name, part)}
    if parts.get("anyOf", [])[: len(_ID)] == _ID:
        parts["anyOf"][: len(_ID)] = [_ref("Id")]
    if "$ref" in parts and len(parts) > 1:
        parts["allOf"] = [{"$ref": parts.pop("$ref")}]
    return parts


def _is_title(name: str, part: object) -> bool:
    return name == "title" and isinstance(part, str)


def _object(required: Mapping[str, Node], optional: Mapping[str, Node] | None = None) -> Node:
    return {
        "type": "object",
        "properties": {**required, **(optional or {})},
        **({"required": list(required)} if required else {}),
    }


def _text(description: str | None = None, **keywords: str) -> Node:
    return {**({} if description is None else {"description": description}), "type": "string", **keywords}


def _ref(schema: str) -> Node:
    return {"$ref": f"#/components/schemas/{schema}"}
