"""What a Celery worker takes from its queues."""

import base64
import json
from types import SimpleNamespace
from typing import Any

import pytest
from celery import Celery
from celery.worker.consumer import Consumer
from hypothesis import given
from hypothesis import strategies as st
from kombu.transport.virtual.base import Channel, Message
from structlog.typing import EventDict

from tests.unit.events.messages import json_values
from worker.celery.strict_consumer import StrictConsumer, read_envelope, reduce_message
from worker.threads import Turning

EFFECT = "0192d8a0-0000-7000-8000-000000000001"
TASK_ID = "7d0c9d1e-0000-4000-8000-000000000000"
HEADERS = {"task": "effects.cascade_decline", "id": TASK_ID, "argsrepr": "cascade decline · exam 7"}
BODY = [[EFFECT], {}, {"callbacks": None, "errbacks": None, "chain": None, "chord": None}]
REDUCED: tuple[list[str], dict[str, Any], dict[str, Any]] = ([EFFECT], {}, {})


def message(headers: Any, body: Any) -> Any:
    return SimpleNamespace(headers=headers, body=body, properties={"reply_to": "x"}, content_type=None)


def test_of_a_message_of_ours_the_call_is_left_and_its_label() -> None:
    hostile = {"eta": "2999-01-01", "shadow": "x", "group": "g", "timelimit": [1, 1], "root_id": {}}
    one = message({**HEADERS, **hostile}, json.dumps([[EFFECT], {}, {"callbacks": [{"task": "x"}]}]))
    reduce_message(one)
    assert one.headers == {**HEADERS, "lang": "py", "kwargsrepr": "{}", "headers": {}}
    assert (one.body, one.properties, one.content_type) == (REDUCED, {}, None)


@pytest.mark.parametrize(("label", "shown"), [("x" * 5000, "x" * 1000), (7, EFFECT), (None, EFFECT)])
def test_a_label_is_a_short_text(label: object, shown: str) -> None:
    one = message({**HEADERS, "argsrepr": label}, json.dumps(BODY))
    reduce_message(one)
    assert one.headers["argsrepr"] == shown


@given(
    json_values | st.fixed_dictionaries({}, optional=dict.fromkeys(HEADERS, json_values)) | st.just(HEADERS),
    st.none() | st.binary() | json_values.map(json.dumps) | st.lists(json_values, max_size=4).map(json.dumps),
)
def test_any_other_message_is_refused(headers: Any, body: Any) -> None:
    with pytest.raises(ValueError, match=r"^it(s| has| asks) "):
        reduce_message(message(headers, body))


@given(
    st.text()
    | json_values.map(json.dumps)
    | st.fixed_dictionaries(
        {},
        optional={
            "body": json_values,
            "headers": json_values | st.just(HEADERS),
            "properties": json_values
            | st.fixed_dictionaries(
                {}, optional={"body_encoding": json_values | st.just("base64"), "delivery_info": json_values}
            ),
            "content-type": json_values,
        },
    ).map(json.dumps)
)
def test_whatever_is_in_a_list_kombu_can_open(raw: str) -> None:
    envelope = read_envelope(raw)
    opened = Message(envelope, channel=SimpleNamespace(decode_body=decode_body))
    assert isinstance(opened.headers, dict)
    assert isinstance(opened.delivery_info, dict)
    assert isinstance(opened.delivery_tag, str)


def decode_body(body: Any, encoding: str | None) -> Any:
    return Channel.decode_body(SimpleNamespace(codecs=Channel.codecs), body, encoding)


@pytest.mark.parametrize("encoding", ["rot13", "BASE64", 7, {}])
def test_a_body_in_an_unknown_encoding_is_none(encoding: object) -> None:
    raw = {"body": "e30=", "headers": HEADERS, "properties": {"body_encoding": encoding, "delivery_info": {}}}
    assert read_envelope(json.dumps(raw))["headers"] == {}


def test_what_is_refused_is_rejected_with_a_line_that_quotes_nothing(
    monkeypatch: pytest.MonkeyPatch, logged: list[EventDict]
) -> None:
    # Given Celery's consumer behind the gate
    handled: list[Any] = []
    rejected: list[Any] = []
    monkeypatch.setattr(Consumer, "create_task_handler", lambda *_: handled.append)
    consumer = StrictConsumer.__new__(StrictConsumer)
    consumer.connection_errors = ()
    on_message = consumer.create_task_handler()
    # When a good message comes, and others
    good = message(HEADERS, json.dumps(BODY))
    other, elsewhere, closed = (message({"task": "ada@example.org"}, "ada") for _ in range(3))
    for one, info in (
        (other, {"routing_key": "invigilator.effects.email"}),
        (elsewhere, {"routing_key": ["ada"]}),
    ):
        one.delivery_info = info
    closed.delivery_info = None
    for one in (other, elsewhere, closed):
        one.reject_log_error = lambda *_, one=one: rejected.append(one)
    for one in (good, other, elsewhere):
        on_message(one)
    consumer.on_decode_error(closed, KeyError("ada@example.org"))
    # Then the good one is handled, and each of the others rejected with a line
    assert (handled, rejected) == ([good], [other, elsewhere, closed])
    assert [(line["event"], line["queue"]) for line in logged] == [
        ("a message was discarded", "invigilator.effects.email"),
        ("a message was discarded", "an effects queue"),
        ("a message was discarded", "an effects queue"),
    ]
    assert "ada@" not in str(logged)


def test_what_kombu_would_make_a_number_of_ends_nobody() -> None:
    assert read_envelope('{"__type__": "decimal", "__value__": "x"}')["headers"] == {}


def test_kombus_own_envelope_is_opened_as_ever() -> None:
    raw = {
        "body": base64.b64encode(json.dumps(BODY).encode()).decode(),
        "headers": HEADERS,
        "properties": {"body_encoding": "base64", "delivery_info": {"routing_key": "q"}, "delivery_tag": "t"},
    }
    envelope = read_envelope(json.dumps(raw))
    assert envelope["properties"].pop("delivery_tag") != raw["properties"].pop("delivery_tag")  # type: ignore[attr-defined]
    assert envelope == raw


def test_what_flower_is_told_of_many_tasks_is_one_message() -> None:
    # Given Celery's consumer behind the gate, and its loop begun
    repeated: list[Any] = []
    sent: list[Any] = []
    consumer = StrictConsumer.__new__(StrictConsumer)
    consumer.turning = Turning()
    consumer.blueprint = SimpleNamespace(send_all=lambda *_, **__: None, stop=sent.append)
    with Celery("test", broker="memory://", set_as_current=False) as app, app.connection() as connection:
        consumer.event_dispatcher = app.events.Dispatcher(
            connection, buffer_group=["task"], on_send_buffered=consumer.on_send_event_buffered
        )
        consumer.event_dispatcher.producer = SimpleNamespace(publish=lambda events, **_: sent.append(events))
        consumer.register_with_event_loop(
            SimpleNamespace(call_repeatedly=lambda *call: repeated.append(call))
        )
        # When tasks are received, started and done
        for number in range(300):
            consumer.event_dispatcher.send("task-received", uuid=str(number))
        assert sent == []
        [(_, tell), (_, turn)] = repeated
        assert turn == consumer.turning.expect
        tell()
        tell()
        # Then one message tells of them all
        [events] = sent
        assert [event["uuid"] for event in events] == [str(number) for number in range(300)]
        # And nothing is left untold when the worker ends
        consumer.event_dispatcher.send("task-succeeded", uuid="1")
        consumer.stop()
        assert [event["type"] for event in sent[1]] == ["task-succeeded"]
        assert sent[2] is consumer


def test_without_a_connection_nobody_is_told_anything() -> None:
    consumer = StrictConsumer.__new__(StrictConsumer)
    consumer.event_dispatcher = None
    consumer.send_buffered_events()


def test_the_loop_begins_without_events_too() -> None:
    repeated: list[Any] = []
    consumer = StrictConsumer.__new__(StrictConsumer)
    consumer.turning = Turning()
    consumer.blueprint = SimpleNamespace(send_all=lambda *_, **__: None)
    consumer.event_dispatcher = None
    consumer.register_with_event_loop(SimpleNamespace(call_repeatedly=lambda *call: repeated.append(call)))
    assert consumer.turning.expect in [call for _, call in repeated]


def test_a_lost_connection_ends_no_worker_whose_threads_are_at_work(monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a consumer whose tasks in hand change while Celery goes through them, twice
    changes = iter([RuntimeError("Set changed size during iteration")] * 2)

    def on_close(_: Any) -> None:
        for change in changes:
            raise change

    monkeypatch.setattr(Consumer, "on_close", on_close)
    consumer = StrictConsumer.__new__(StrictConsumer)
    # When its connection is lost, then it goes on
    consumer.on_close()
    assert list(changes) == []
