"""Hostile messages, from a corpus and from Hypothesis: each becomes a command or an error, and runs no code."""

import base64
import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from db.quarantine import Unreadable
from events.commands import Command
from events.envelope import parse, render
from events.errors import InvalidMessageError
from events.vocabulary import QuarantineCode
from tests import hostile
from tests.hostile import CORPUS, Hostile
from tests.unit.events import messages
from worker.commands import decoding
from worker.commands.decoding import Received, decode
from worker.commands.sources import Message
from worker.commands.sources.redis import MAX_ENVELOPE_BYTES, Place, open_envelope

any_json = messages.json_values
corpus = pytest.mark.parametrize("one", CORPUS, ids=lambda one: one.name)


@corpus
def test_each_of_the_corpus_is_what_it_should_be(one: Hostile) -> None:
    decoded = decode(Message(one.body, None, one.content_type, one.headers))
    if one.code is None:
        assert isinstance(decoded, Received)
    else:
        assert isinstance(decoded, Unreadable)
        assert (decoded.code, decoded.body) == (one.code, one.body)
        assert decoded.detail.isprintable()
    assert_storable(decoded)
    assert not hostile.PROOF.exists()


@given(messages.commands, st.data())
def test_a_command_that_was_tampered_with_is_one_or_says_why(command: Command, draw: st.DataObject) -> None:
    body = render(command)
    start, end = sorted(draw.draw(st.tuples(*[st.integers(0, len(body))] * 2)))
    middle = body[start:end]
    flipped = bytes(byte ^ (1 << draw.draw(st.integers(0, 7))) for byte in middle[:1])
    changed = draw.draw(
        st.sampled_from([b"", middle * 2, middle[::-1], flipped + middle[1:], b"\x00" + middle])
    )
    assert_storable(decode(Message(body[:start] + changed + body[end:], None)))


@given(messages.commands, any_json, st.data())
def test_any_value_may_be_any_other(command: Command, value: Any, draw: st.DataObject) -> None:
    event = json.loads(render(command))
    place = draw.draw(st.sampled_from([event, event["data"]]))
    place[draw.draw(st.sampled_from(sorted(place)))] = value
    assert_storable(decode(Message(messages.encode(event), None)))


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "body": any_json | st.just(base64.b64encode(hostile.GOOD).decode()),
            "properties": any_json
            | st.fixed_dictionaries({}, optional={"body_encoding": any_json | st.just("base64")}),
            "headers": any_json,
            "content-type": any_json,
            "content-encoding": any_json,
            "payload": any_json,
            "signature": any_json,
        },
    )
)
def test_any_envelope_on_redis_is_opened_or_kept_whole(envelope: dict[str, Any]) -> None:
    raw = messages.encode(envelope)
    message = open_envelope(Place("queue", raw))
    decoded = decode(message)
    assert_storable(decoded)
    if "body" not in envelope and "payload" not in envelope:
        assert message.body == raw


@given(
    st.binary() | st.just(hostile.GOOD),
    any_json | st.binary(),
    st.dictionaries(st.text(), any_json | st.binary() | st.datetimes() | st.decimals(), max_size=5),
)
def test_any_properties_of_amqp_can_be_kept(body: bytes, content_type: Any, headers: dict[str, Any]) -> None:
    assert_storable(decode(Message(body, None, content_type, headers)))


def test_headers_that_cannot_be_shown_are_kept_by_their_type() -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    decoded = decode(Message(b"", None, headers={"deep": deep, "long": 10**5000, "nan": math.nan}))
    assert isinstance(decoded, Unreadable)
    assert decoded.headers == {
        "deep": "a list that cannot be shown",
        "long": "a int that cannot be shown",
        "nan": "nan",
    }
    while deep:  # Python would free them one inside the other
        deep = deep.pop()


def test_a_content_type_may_be_anything() -> None:
    for content_type in (7, b"application/json", {"a": 1}, ["application/json"]):
        with pytest.raises(InvalidMessageError, match="content type: "):
            parse(hostile.GOOD, content_type)  # type: ignore[arg-type]


def test_of_an_enormous_body_the_beginning_is_kept_and_the_rest_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(decoding, "MAX_KEPT_BYTES", 100_000)
    whole = decode(Message(b"x" * 100_000, None))
    cut = decode(Message(b"x" * 100_001, None))
    assert isinstance(whole, Unreadable)
    assert isinstance(cut, Unreadable)
    assert (len(whole.body), len(cut.body)) == (100_000, 100_000)
    assert "kept" not in whole.detail
    assert cut.detail.endswith("; of 100001 bytes, only the first 100000 are kept")


def test_an_envelope_that_is_too_large_is_not_opened() -> None:
    body = base64.b64encode(b"x" * MAX_ENVELOPE_BYTES).decode()
    raw = json.dumps({"body": body, "properties": {"body_encoding": "base64"}, "headers": {}}).encode()
    assert open_envelope(Place("queue", raw)).body is raw


def assert_storable(one: Received | Unreadable) -> None:
    kept = one if isinstance(one, Unreadable) else one.unreadable(QuarantineCode.ID_REUSED, "is there twice")
    for text in (*kept.headers, *kept.headers.values(), kept.detail):
        assert "\x00" not in text
        text.encode("utf-8")
