"""What does not belong in the effects' queues: the worker says so in a line, tells nothing of it, and goes on."""

import base64
import json
import pickle
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from kombu import Connection

from tests.acceptance.client import event
from tests.acceptance.harness import Stack

QUEUE = "invigilator.effects.credit"
TASK = "effects.set_credit_status"
ID = str(uuid.UUID(int=7))
PERSONAL = "quokka"
LEARNER = event(
    "learner.upsert.v1", {"user_id": "u", "username": PERSONAL, "email": f"{PERSONAL}@example.org"}, "l"
)
EMBED: dict[str, Any] = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}
OTHER = {"task": "celery.map", "args": [], "kwargs": {}, "options": {"queue": "elsewhere"}}
CANVAS = {**EMBED, "callbacks": [OTHER], "chain": [OTHER], "errbacks": [OTHER]}


class Bomb:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return Path.touch, (self.path,)


@pytest.fixture(params=["valkey", "rabbitmq"])
def stack(request: pytest.FixtureRequest, database_url: str) -> Iterator[Stack]:
    with Stack(database_url, request.getfixturevalue(f"{request.param}_url")) as stack:
        yield stack


def test_a_worker_survives_and_tells_nothing_of_what_does_not_belong_to_it(
    stack: Stack, tmp_path: Path
) -> None:
    # Given a worker, and everything that should not be in its queue
    worker = stack.start("effects")
    stack.wait_until(lambda: " ready." in worker.output(), "the worker")
    bomb = pickle.dumps(Bomb(tmp_path / "executed"))
    messages = _messages(bomb)
    with Connection(stack.broker_url) as connection, connection.Producer() as producer:
        for body, properties in messages:
            producer.publish(body, exchange="", routing_key=QUEUE, content_encoding="utf-8", **properties)
    raw = [*_raw(), bomb] if stack.broker_url.startswith("redis") else []
    if raw:
        with redis.Redis.from_url(stack.broker_url) as client:
            client.lpush(QUEUE, *raw)
    # When a real effect comes after them
    _owe(stack)
    stack.start("commands")
    stack.start("relay")
    done = "SELECT count(*) FROM effects WHERE kind = 'set_credit_status' AND state = 'done'"
    stack.wait_until(lambda: stack.number(done) == 1, "the effect")
    # Then each was discarded with a line, nothing was executed or told, and the worker is the same
    expected = len(messages) + len(raw)
    stack.wait_until(lambda: worker.output().count("a message was discarded") >= expected, "the last line")
    output = worker.output()
    discarded = [line for line in worker.logged() if line["event"] == "a message was discarded"]
    assert len(discarded) == expected
    assert (QUEUE, "it asks for no task of ours") in {(line["queue"], line["reason"]) for line in discarded}
    assert "Traceback" not in output
    assert PERSONAL not in output
    assert not (tmp_path / "executed").exists()
    assert stack.running("effects") == [worker]


def test_a_task_of_ours_does_what_its_row_says_and_nothing_else(stack: Stack) -> None:
    # Given an effect that nobody has offered
    _owe(stack)
    commands = stack.start("commands")
    stack.settle_commands()
    assert commands.terminate() == 0
    [row] = stack.rows("SELECT id FROM effects WHERE kind = 'set_credit_status' ORDER BY sequence LIMIT 1")
    worker = stack.start("effects")
    stack.wait_until(lambda: " ready." in worker.output(), "the worker")
    # When it is asked for with a time far ahead, a name to be shown, and other messages to be sent afterwards
    with Connection(stack.broker_url) as connection, connection.Producer() as producer:
        producer.publish(
            json.dumps([[str(row.id)], {}, CANVAS]).encode(),
            routing_key=QUEUE,
            content_type="application/json",
            content_encoding="utf-8",
            headers=_headers(eta="2999-01-01T00:00:00Z", shadow=PERSONAL, timelimit=["x", {}], group=[]),
            reply_to="elsewhere",
        )
    # Then it is done at once, and that is all
    stack.wait_until(
        lambda: bool(stack.rows("SELECT 1 FROM effects WHERE id = :id AND state = 'done'", id=row.id)), "it"
    )
    assert PERSONAL not in worker.output()
    with Connection(stack.broker_url) as connection, connection.channel() as channel:
        for queue in ("elsewhere", "celery"):
            assert channel.queue_declare(queue, durable=True, auto_delete=False).message_count == 0


def _headers(**others: Any) -> dict[str, Any]:
    return {"lang": "py", "task": TASK, "id": ID, "argsrepr": "()", "kwargsrepr": "{}", **others}


def _messages(bomb: bytes) -> list[tuple[bytes, dict[str, Any]]]:
    """Bodies and properties."""
    json_ = "application/json"

    def called(*arguments: Any, **keywords: Any) -> bytes:
        return json.dumps([arguments, keywords, EMBED]).encode()

    good = called(ID)
    return [
        (LEARNER, {"content_type": "application/cloudevents+json"}),
        (LEARNER, {"content_type": json_}),
        (LEARNER, {"content_type": json_, "headers": _headers()}),
        (bomb, {"content_type": "application/x-python-serialize"}),
        (bomb, {"content_type": "application/x-python-serialize", "headers": _headers()}),
        (f"!!python/object/apply:os.system ['{PERSONAL}']".encode(), {"content_type": "application/x-yaml"}),
        (b"\x81\xa1a\x01", {"content_type": "application/x-msgpack", "headers": _headers()}),
        (json.dumps({"task": TASK, "id": ID, "args": [ID], "kwargs": {}}).encode(), {"content_type": json_}),
        (b"7", {"content_type": json_, "headers": _headers()}),
        (b"[" * 4000, {"content_type": json_, "headers": _headers()}),
        (b"[" + b"9" * 4000 + b"]", {"content_type": json_, "headers": _headers()}),
        (b" " * 1_000_000, {"content_type": json_, "headers": _headers()}),
        (b"", {"content_type": json_, "headers": _headers()}),
        (called(), {"content_type": json_, "headers": _headers()}),
        (called(5), {"content_type": json_, "headers": _headers()}),
        (called(PERSONAL), {"content_type": json_, "headers": _headers()}),
        (called({PERSONAL: 1}), {"content_type": json_, "headers": _headers()}),
        (called(ID, ID), {"content_type": json_, "headers": _headers()}),
        (called(ID, **{PERSONAL: 1}), {"content_type": json_, "headers": _headers()}),
        (good, {"content_type": json_, "headers": {"task": TASK}}),
        (good, {"content_type": json_, "headers": _headers(id=PERSONAL)}),
        (good, {"content_type": json_, "headers": _headers(id={"a": 1})}),
        (good, {"content_type": json_, "headers": _headers(task=PERSONAL)}),
        (good, {"content_type": json_, "headers": {"task": {"a": PERSONAL}}}),
        (good, {"content_type": json_, "headers": {"task": ["a"]}}),
        (good, {"content_type": json_, "headers": _headers(task="celery.map")}),
        (good, {"content_type": json_, "headers": _headers(task="celery.chord_unlock")}),
        (good, {"content_type": json_, "headers": _headers(compression="application/x-gzip")}),
        (good, {"content_type": json_, "headers": _headers(compression=["x"])}),
        (good, {"content_type": json_, "headers": _headers(), "compression": "gzip"}),
    ]


def _raw() -> list[bytes]:
    """On Redis, a list's element may be anything."""
    body = base64.b64encode(json.dumps([[ID], {}, EMBED]).encode()).decode()
    whole: dict[str, Any] = {
        "body": body,
        "content-type": "application/json",
        "content-encoding": "utf-8",
        "headers": _headers(),
        "properties": {"body_encoding": "base64", "delivery_tag": "x", "delivery_info": {}},
    }
    properties = whole["properties"]
    broken = [
        {**whole, "body": "%"},
        {**whole, "body": 7},
        {**whole, "headers": [1]},
        {**whole, "headers": None},
        {**whole, "properties": None},
        {**whole, "properties": {**properties, "delivery_info": 7}},
        {**whole, "properties": {**properties, "body_encoding": "rot13"}},
        {**whole, "properties": {**properties, "body_encoding": {}}},
        {"no": "envelope"},
        {"__type__": "decimal", "__value__": "x"},
        [],
        PERSONAL,
    ]
    texts = [b"", b"nonsense", b"\xff\xfe", b"[" * 100_000, b"9" * 5000, LEARNER]
    return [*(json.dumps(one).encode() for one in broken), *texts]


def _owe(stack: Stack) -> None:
    stack.client.course("course")
    stack.client.exam("exam", "course")
    stack.client.learner("u")
    stack.client.create("exam", "u", taking_as_proctored=True)
    stack.client.update("exam", "u", "started")
    stack.client.update("exam", "u", "submitted")
