"""Decoding: a message becomes a command or goes to quarantine."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from db.quarantine import Unreadable
from db.texts import storable
from events.envelope import MAX_BODY_BYTES, MAX_IDENTIFIED_BYTES
from events.sharding import shard_of
from events.vocabulary import QuarantineCode
from tests import sample_commands as c
from tests.unit.events.messages import EXAMPLES, encode, event
from worker.commands.decoding import MAX_HEADERS, Received, decode
from worker.commands.slices import Slice
from worker.commands.sources import Message

BODY = encode(event(next(iter(EXAMPLES))))


def test_a_command_is_understood_and_kept_whole() -> None:
    received = decode(Message(BODY, None, "application/json", {"trace": 7}))
    assert isinstance(received, Received)
    assert received.body == BODY
    kept = received.unreadable(QuarantineCode.FAILED, "failed")
    assert kept.headers == {"content-type": "application/json", "trace": "7"}
    assert received.key == (json.loads(BODY)["source"], json.loads(BODY)["id"])


@pytest.mark.parametrize(
    ("message", "code"),
    [
        (Message(b"nonsense", None), QuarantineCode.NOT_JSON),
        (Message(BODY, None, None, {"compression": "application/x-gzip"}), QuarantineCode.NOT_JSON),
        (Message(BODY, None, "application/x-python-serialize"), QuarantineCode.NOT_CLOUDEVENT),
        (Message(b"x" * 70_000, None), QuarantineCode.TOO_LARGE),
    ],
)
def test_what_is_no_command_says_why(message: Message, code: QuarantineCode) -> None:
    unreadable = decode(message)
    assert isinstance(unreadable, Unreadable)
    assert (unreadable.code, unreadable.body) == (code, message.body)


@given(
    st.binary(),
    st.one_of(st.none(), st.text(), st.just("application/json")),
    st.dictionaries(st.text(), st.one_of(st.text(), st.binary(), st.integers(), st.none()), max_size=60),
)
def test_whatever_comes_can_be_stored(body: bytes, content_type: str | None, headers: dict[str, Any]) -> None:
    one = decode(Message(body, None, content_type, headers))
    kept = one if isinstance(one, Unreadable) else one.unreadable(QuarantineCode.ID_REUSED, "is there twice")
    assert len(kept.headers) <= MAX_HEADERS
    for text in (*kept.headers, *kept.headers.values(), kept.detail):
        assert "\x00" not in text
        text.encode("utf-8")


@pytest.mark.parametrize("shard", range(3))
def test_a_command_is_accepted_on_the_shard_of_its_learner_only(shard: int) -> None:
    # Given commands of learners of three shards, and one of no learner
    learners = {shard_of(user, 3): user for user in map(str, range(20))}
    bodies = [c.received(c.learner(learners[right])).body for right in range(3)]
    exam = c.received(c.exam("A")).body
    # When they come on one of the shards
    decoded = [decode(Message(body, None), accepted=Slice(shard, 3)) for body in (*bodies, exam)]
    # Then that of its learner is accepted, and that of no learner
    accepted = [isinstance(one, Received) for one in decoded]
    assert accepted == [right == shard for right in range(3)] + [True]
    # And the others are kept whole, and say where they belong
    for right, one in enumerate(decoded):
        if isinstance(one, Unreadable):
            assert (one.code, one.body) == (QuarantineCode.WRONG_SHARD, bodies[right])
            assert one.detail.startswith(f"belongs to shard {right} of 3 and came on {shard}")


def test_what_is_no_command_is_not_called_misplaced() -> None:
    one = decode(Message(b"{}", None), accepted=Slice(0, 2))
    assert isinstance(one, Unreadable)
    assert one.code is QuarantineCode.NOT_CLOUDEVENT


def test_what_cannot_be_stored_is_marked() -> None:
    assert storable("a\x00b\ud800cd", 5) == "a�b?c"


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"source": "/lms", "id": "7"}', ("/lms", "7")),
        (b'{"source": "/lms", "id": 7, "data": null}', ("/lms", "7")),
        (b'{"source": "", "id": "7"}', (None, "7")),
        (b'{"source": "/lms", "id": ["7"]}', ("/lms", None)),
        (b'{"source": "a\\u0000b", "id": "' + b"x" * 256 + b'"}', (None, None)),
        (b'{"source": "/lms", "source": "/lms", "id": "7"}', (None, "7")),
        (b'{"source": "/lms", "id": "7", "data": {"a": 1, "a": 2}}', ("/lms", "7")),
        (b'{"source": "/lms", "id": "7", "data": NaN}', ("/lms", "7")),
        (b'{"source": "/lms", "id": "7", "data": ' + b"7" * 5000 + b"}", ("/lms", "7")),
        (b'{"source": "/lms", "id": ' + b"7" * 5000 + b"}", ("/lms", None)),
        (b'{"source": "/lms", "id": "7", "data": "two\nlines"}', ("/lms", "7")),
        (b'{"source": "/lms", "id": "7", "data": {"full_name": "Jos\xe9"}}', ("/lms", "7")),
        (b'{"source": "/lms", "id": "7\xe9"}', ("/lms", None)),
        (b'\xef\xbb\xbf{"source": "/lms", "id": "7"}', ("/lms", "7")),
        (b'[{"source": "/lms", "id": "7"}]', ("/lms", "7")),
        (b'[{"source": "/lms", "id": "7"}, {"source": "/lms", "id": "8"}]', (None, None)),
        (b'["/lms", "7"]', (None, None)),
        (b'[["/lms", "7"]]', (None, None)),
        (b"[" * 100_000, (None, None)),
        (b'{"source": "/lms", "id": "7"', (None, None)),
        (b"7", (None, None)),
        (b"\xff", (None, None)),
        (b'{"source": "/lms", "id": "7", "data": "' + b"x" * MAX_BODY_BYTES + b'"}', ("/lms", "7")),
        (b'{"source": "/lms", "id": "7", "data": "' + b"x" * MAX_IDENTIFIED_BYTES + b'"}', (None, None)),
    ],
)
def test_what_is_no_command_keeps_its_source_and_id_if_they_can_be_read(
    body: bytes, expected: tuple[str | None, str | None]
) -> None:
    unreadable = decode(Message(body, None))
    assert isinstance(unreadable, Unreadable)
    assert (unreadable.source, unreadable.command_id) == expected


@pytest.mark.parametrize(
    ("data", "user_id"),
    [
        (b'{"user_id": "42"}', "42"),
        (b'{"user_id": 42, "nonsense": [1, {}], "email": "nobody"}', "42"),
        (b'{"user_id": "42", "full_name": "Jos\xe9"}', "42"),
        (b'{"user_id": "42", "user_id": "43"}', None),
        (b'{"user_id": ["42"]}', None),
        (b'{"user_id": true}', None),
        (b'{"user_id": ""}', None),
        (b"[]", None),
        (b"null", None),
    ],
)
def test_what_is_no_command_keeps_its_learner_if_that_can_be_read(data: bytes, user_id: str | None) -> None:
    unreadable = decode(Message(b'{"source": "/lms", "id": "7", "data": ' + data + b"}", None))
    assert isinstance(unreadable, Unreadable)
    assert unreadable.user_id == user_id
