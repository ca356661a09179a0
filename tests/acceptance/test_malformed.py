"""Whatever arrives, the good commands around it are applied, and it waits whole for a person."""

import base64
import gzip
import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import redis
from celery import Celery
from kombu import Connection

from tests.acceptance.client import SOURCE, event
from tests.acceptance.harness import Stack
from tests.hostile import CORPUS

QUEUE = "invigilator.commands.0"
UPDATE = "exam.attempt.update-status.v1"
STATUSES = ("started", "ready_to_submit", "download_software_clicked", "ready_to_start")
DATA = {"exam_id": "exam", "user_id": "u", "to_status": "started"}
GOOD = event(UPDATE, DATA, "never-applied")


def _data(**fields: object) -> bytes:
    return event(UPDATE, {**DATA, **fields}, "never-applied")


def _event(**attributes: object) -> bytes:
    return json.dumps({**json.loads(GOOD), **attributes}).encode()


def _without(name: str) -> bytes:
    return json.dumps({key: value for key, value in json.loads(GOOD).items() if key != name}).encode()


def _nested(depth: int) -> bytes:
    return GOOD.replace(b'"started"', b"[" * depth + b"]" * depth)


BARE = [
    ("not_json", b""),
    ("not_json", b"{nope"),
    ("not_json", GOOD[:-1]),
    ("not_json", GOOD + b"{}"),
    ("not_json", b"\xff\xfe\x00"),
    ("not_json", GOOD.replace(b"started", b"\xe9")),
    ("not_json", GOOD.decode().encode("utf-16")),
    ("not_json", b"\xef\xbb\xbf" + GOOD),
    ("not_json", gzip.compress(GOOD)),
    ("not_json", b"\x80\x04\x95\x0b\x00."),  # pickle
    ("not_json", GOOD.replace(b'"started"', b"NaN")),
    ("not_json", GOOD.replace(b'"started"', b"-Infinity")),
    ("not_json", GOOD.replace(b'"started"', b"9" * 5000)),
    ("not_json", GOOD.replace(b'"id"', b'"id": "x", "id"')),
    ("not_json", _nested(20_000)),
    ("not_json", b"[" * 60_000),
    ("not_cloudevent", b"[]"),
    ("not_cloudevent", b"null"),
    ("not_cloudevent", b"42"),
    ("not_cloudevent", b"{}"),
    ("not_cloudevent", b'{"a": 1}'),
    ("not_cloudevent", _without("specversion")),
    ("not_cloudevent", _without("id")),
    ("not_cloudevent", _without("type")),
    ("not_cloudevent", _event(specversion="0.3")),
    ("not_cloudevent", _event(source="")),
    ("not_cloudevent", _event(id="x" * 256)),
    ("not_cloudevent", _event(id="nul\x00")),
    ("not_cloudevent", _event(id="\ud800")),
    ("not_cloudevent", _event(source="\udfff")),
    ("not_cloudevent", _event(id=True)),
    ("not_cloudevent", _event(time="yesterday")),
    ("not_cloudevent", _event(datacontenttype="text/xml")),
    ("unknown_type", _event(type="exam.attempt.cancel.v1")),
    ("unknown_type", _event(type="exam.attempt.update-status.v2\x00")),
    ("invalid_data", _without("data")),
    ("invalid_data", _event(data=[])),
    ("invalid_data", _event(data=None)),
    ("invalid_data", _data(to_satus="started")),
    ("invalid_data", _event(data={"exam_id": "exam", "user_id": "u"})),
    ("invalid_data", _data(to_status=1)),
    ("invalid_data", _data(cascade_effects="yes")),
    ("invalid_data", _data(if_missing="shrug")),
    ("invalid_data", _data(user_id="")),
    ("invalid_data", _data(user_id="x" * 256)),
    ("invalid_data", _data(user_id="nul\x00")),
    ("invalid_data", _data(exam_id="\ud800")),
    ("invalid_data", _data(user_id=1.5)),
    ("invalid_data", _data(user_id=True)),
    ("invalid_data", GOOD.replace(b'"exam"', b"1e999")),
    ("invalid_data", _nested(100)),
    ("invalid_data", event("learner.upsert.v1", {"user_id": "u", "username": "n", "email": "a@b\r\nc"}, "n")),
    ("too_large", _data(to_status="x" * 65_536)),
    ("too_large", b" " * 65_537),
    ("too_large", b"{" * 3_000_000),
    ("id_reused", event(UPDATE, {**DATA, "to_status": "submitted"}, "taken")),
    ("id_reused", event("exam.attempt.remove.v1", {"exam_id": "exam", "user_id": "u"}, "taken")),
]
BROKEN_ENVELOPES = [
    json.dumps({"body": 12, "properties": {}, "headers": {}}).encode(),
    json.dumps({"body": "%%%", "properties": {"body_encoding": "base64"}}).encode(),
    json.dumps({"body": "\ud800", "properties": {}}).encode(),
    json.dumps({"body": "", "properties": {}, "headers": [1, 2]}).encode(),
    json.dumps({"body": "", "properties": None}).encode(),
    json.dumps({"properties": {}}).encode(),
]
DEEP_ENVELOPE = b'{"body": "", "properties": {}, "headers": ' + b'{"a": ' * 5_000 + b"1" + b"}" * 5_001


def test_whatever_arrives_waits_whole_and_stops_nobody(stack: Stack) -> None:
    process = stack.start("commands", BATCH_SIZE=7)
    _introduce(stack)
    for number, (_, body) in enumerate(BARE):
        stack.client.publish_malformed(body)
        stack.client.update("exam", "u", STATUSES[number % len(STATUSES)])
    stack.settle_commands()
    rows = stack.rows("SELECT code, body FROM quarantine")
    assert Counter((row.code, bytes(row.body)) for row in rows) == Counter(BARE)
    expected = [STATUSES[number % len(STATUSES)] for number in range(len(BARE))]
    assert stack.history("exam", "u") == ["created", *expected]
    assert stack.running("commands") == [process]
    warnings = [line for line in process.logged() if line["level"] == "warning"]
    assert len(warnings) == len(BARE), "one line each"


def test_the_corpus_of_hostile_messages_stops_nobody(stack: Stack) -> None:
    bare = [one for one in CORPUS if one.content_type == "application/cloudevents+json" and not one.headers]
    process = stack.start("commands")
    for one in bare:
        if one.code is None:
            stack.client.publish([one.body])
        else:
            stack.client.publish_malformed(one.body)
    _introduce(stack)
    stack.settle_commands()
    rows = stack.rows("SELECT code, body FROM quarantine")
    assert Counter((row.code, bytes(row.body)) for row in rows) == Counter(
        (str(one.code), one.body) for one in bare if one.code is not None
    )
    assert stack.history("exam", "u") == ["created"]
    assert stack.running("commands") == [process]


def _introduce(stack: Stack) -> None:
    stack.client.course("course")
    stack.client.exam("exam", "course")
    stack.client.learner("u")
    stack.client.create("exam", "u")
    stack.client.command("course.upsert.v1", {"course_id": "other"}, "taken")


def test_what_other_programs_put_into_the_queue(stack: Stack) -> None:
    _introduce(stack)
    with _kombu(stack) as producer:
        _send(producer, GOOD, "application/x-python-serialize")
        _send(producer, GOOD, "text/plain")
        _send(producer, GOOD, "application/json; charset=latin-1")
        _send(producer, b"\x80\x04.", "application/json")
        _send(producer, b" " * 65_537, "application/json")
        _send(producer, GOOD, "application/json", compression="gzip")
        _send_task(stack)
    codes = ["not_cloudevent"] * 3 + ["not_json", "too_large", "not_json", "not_cloudevent"]
    with redis.Redis.from_url(stack.broker_url) as broker:
        sent: Any = broker.lrange(QUEUE, 0, len(codes) - 1)
    expected = [(code, _inside(raw)) for code, raw in zip(codes, reversed(sent), strict=True)]
    stack.client.malformed += [body for _, body in expected]
    for envelope in (*BROKEN_ENVELOPES, DEEP_ENVELOPE):
        stack.client.publish_malformed(envelope)
    stack.client.update("exam", "u", "started")
    process = stack.start("commands")
    stack.settle_commands()
    rows = stack.rows("SELECT code, body FROM quarantine")
    broken = [("not_cloudevent", envelope) for envelope in BROKEN_ENVELOPES] + [("not_json", DEEP_ENVELOPE)]
    assert Counter((row.code, bytes(row.body)) for row in rows) == Counter(expected + broken)
    assert stack.history("exam", "u") == ["created", "started"]
    assert stack.running("commands") == [process]


@pytest.mark.parametrize("content_type", ["application/json", "application/cloudevents+json; charset=UTF-8"])
def test_a_good_command_in_kombus_envelope_is_one(stack: Stack, content_type: str) -> None:
    stack.start("commands")
    _introduce(stack)
    body = event(UPDATE, DATA, "by-kombu")
    with _kombu(stack) as producer:
        _send(producer, body, content_type)
    stack.client.bodies[SOURCE, "by-kombu"] = body
    stack.settle_commands()
    assert stack.outcome("by-kombu") == ("applied", None)
    assert stack.number("SELECT count(*) FROM quarantine") == 0


def test_a_person_looks_mends_and_discards(stack: Stack) -> None:
    stack.start("commands")
    stack.client.publish_malformed(b"\xff\x00")
    stack.client.publish_malformed(event("exam.attempt.cancel.v1", DATA, "x"))
    stack.settle_commands()
    listed = [json.loads(line) for line in stack.cli("quarantine", "list", "--json").stdout.splitlines()]
    assert [(one["code"], one["size"]) for one in listed] == [
        ("not_json", 2),
        ("unknown_type", len(stack.client.malformed[1])),
    ]
    shown = json.loads(stack.cli("quarantine", "show", str(listed[0]["id"]), "--json").stdout)
    assert base64.b64decode(shown["body"]) == b"\xff\x00"
    stack.cli("quarantine", "replay", str(listed[1]["id"]))
    stack.wait_until(
        lambda: stack.number("SELECT max(id) FROM quarantine") > listed[1]["id"], "it to come back"
    )
    assert stack.cli("quarantine", "discard", str(listed[0]["id"])).returncode == 0
    [row] = stack.rows("SELECT code, body FROM quarantine")
    assert (row.code, bytes(row.body)) == ("unknown_type", stack.client.malformed[1])


@contextmanager
def _kombu(stack: Stack) -> Iterator[Any]:
    with Connection(stack.broker_url) as connection:
        yield connection.Producer()


def _send(producer: Any, body: bytes, content_type: str, **options: Any) -> None:
    producer.publish(
        body, exchange="", routing_key=QUEUE, content_type=content_type, content_encoding="utf-8", **options
    )


def _send_task(stack: Stack) -> None:
    app = Celery(broker=stack.broker_url, set_as_current=False)
    with app.connection_for_write() as connection:
        app.send_task("effects.set_credit_status", args=["x"], queue=QUEUE, connection=connection)


def _inside(envelope: bytes) -> bytes:
    return base64.b64decode(json.loads(envelope)["body"])
