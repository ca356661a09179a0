"""Signed messages: the envelope for a bare LPUSH, and how decoding treats a signature."""

import json
from base64 import b64encode
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from db.quarantine import Unreadable
from events.envelope import MAX_BODY_BYTES, parse
from events.signing import SIGNATURE_HEADER, sign
from events.vocabulary import QuarantineCode
from tests.unit.events.messages import encode, event
from worker.commands.decoding import MAX_HEADERS, Received, decode
from worker.commands.permits import Permit
from worker.commands.sources import Message
from worker.commands.sources.redis import MAX_ENVELOPE_BYTES, Place, open_envelope
from worker.commands.trust import FILE, Grant, Trust

KEY = "k" * 32
UPDATE = "exam.attempt.update-status.v1"
TRUST = Trust({"/lms/acme": Grant([KEY], Permit([UPDATE], ["submitted"], FILE))})
BODY = encode(event(UPDATE))
SIGNATURE = sign(BODY, KEY)


def signed(body: bytes, signature: Any) -> Message:
    return Message(body, None, headers={SIGNATURE_HEADER: signature})


def code(message: Message) -> QuarantineCode | None:
    one = decode(message, TRUST)
    return one.code if isinstance(one, Unreadable) else None


@pytest.mark.parametrize("signature", [SIGNATURE, SIGNATURE.encode()])
def test_a_signed_command_is_understood(signature: object) -> None:
    one = decode(signed(BODY, signature), TRUST)
    assert isinstance(one, Received)
    assert one.unreadable(QuarantineCode.FAILED, "failed").headers == {SIGNATURE_HEADER: SIGNATURE}


@pytest.mark.parametrize("signature", [None, "", b"", b"\xff", "é\ud800", 7, [SIGNATURE], {"x": 1}, True])
def test_whatever_else_stands_there_is_no_signature(signature: object) -> None:
    one = decode(signed(BODY, signature), TRUST)
    assert isinstance(one, Unreadable)
    assert (one.code, one.body) == (QuarantineCode.BAD_SIGNATURE, BODY)
    assert SIGNATURE not in one.detail
    # and when nothing needs to be signed, nobody looks at it
    assert isinstance(decode(signed(BODY, signature)), Received)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"nonsense", QuarantineCode.NOT_JSON),
        (encode(event(UPDATE, data=...)), QuarantineCode.INVALID_DATA),
        (b" " * (MAX_BODY_BYTES + 1), QuarantineCode.TOO_LARGE),
        (encode(event("exam.attempt.remove.v1")), QuarantineCode.NOT_ALLOWED),
    ],
)
def test_what_is_no_command_stays_none_whoever_signs_it(body: bytes, expected: QuarantineCode) -> None:
    assert code(signed(body, sign(body, KEY))) is expected


@given(st.data())
def test_a_body_that_was_changed_on_its_way_is_never_a_command(data: st.DataObject) -> None:
    # Given a signed body of which one byte was replaced, or which was cut or made longer
    place = data.draw(st.integers(0, len(BODY)))
    until = data.draw(st.integers(place, min(place + 2, len(BODY))))
    body = BODY[:place] + data.draw(st.binary(max_size=2)) + BODY[until:]
    assume(body != BODY)
    # Then it goes to quarantine, by the reason that comes first
    assert code(signed(body, SIGNATURE)) in set(QuarantineCode) - {QuarantineCode.NOT_ALLOWED}


def test_the_same_command_in_other_bytes_needs_another_signature() -> None:
    spaced = json.dumps(event(UPDATE), indent=1).encode()
    assert parse(spaced) == parse(BODY)
    assert code(signed(spaced, SIGNATURE)) is QuarantineCode.BAD_SIGNATURE


def test_a_signature_among_many_headers_is_kept_for_a_replay() -> None:
    many = {f"x-{number}": number for number in range(2 * MAX_HEADERS)}
    message = Message(BODY, None, "text/plain", {**many, "content-type": "x", SIGNATURE_HEADER: b"abc"})
    one = decode(message, TRUST)
    assert isinstance(one, Unreadable)
    assert len(one.headers) == MAX_HEADERS
    assert (one.headers["content-type"], one.headers[SIGNATURE_HEADER]) == ("text/plain", "abc")


# --- the envelope ----------------------------------------------------------------------------------------


def opened(envelope: object) -> Message:
    return open_envelope(Place("q", encode(envelope)))


def test_a_signed_envelope_is_opened() -> None:
    message = opened({"payload": b64encode(BODY).decode(), "signature": SIGNATURE})
    assert (message.body, message.content_type) == (BODY, None)
    assert message.headers == {SIGNATURE_HEADER: SIGNATURE}
    assert isinstance(decode(message, TRUST), Received)
    assert isinstance(decode(message), Received)


@pytest.mark.parametrize(
    "envelope",
    [
        {"payload": "e30="},
        {"payload": "e30=", "signature": SIGNATURE, "more": 1},
        {"payload": "e30=", "signature": SIGNATURE, "specversion": "1.0"},
        {"payload": "e30", "signature": SIGNATURE},
        {"payload": "e3\n0=", "signature": SIGNATURE},
        {"payload": "{}", "signature": SIGNATURE},
        {"payload": "é", "signature": SIGNATURE},
        {"payload": None, "signature": SIGNATURE},
        {"payload": 7, "signature": SIGNATURE},
        {"payload": [], "signature": SIGNATURE},
    ],
)
def test_what_is_no_signed_envelope_is_kept_as_it_is(envelope: object) -> None:
    message = opened(envelope)
    assert (message.body, message.headers) == (encode(envelope), {})
    assert code(message) is QuarantineCode.NOT_CLOUDEVENT


@pytest.mark.parametrize("signature", [None, 7, [], {"a": {}}])
def test_a_signature_that_is_no_text_is_a_bad_one(signature: object) -> None:
    message = opened({"payload": b64encode(BODY).decode(), "signature": signature})
    assert message.body == BODY
    assert code(message) is QuarantineCode.BAD_SIGNATURE


def test_the_limits_hold_for_what_is_inside() -> None:
    # Given the largest body that is allowed, one byte more, and an envelope that is too large to be opened
    largest = BODY + b" " * (MAX_BODY_BYTES - len(BODY))
    one_more = largest + b" "
    for body, expected in ((largest, None), (one_more, QuarantineCode.TOO_LARGE)):
        message = opened({"payload": b64encode(body).decode(), "signature": sign(body, KEY)})
        assert message.body == body
        assert code(message) is expected
    bomb = opened({"payload": b64encode(BODY + b" " * MAX_ENVELOPE_BYTES).decode(), "signature": SIGNATURE})
    assert bomb.headers == {}
    assert code(bomb) is QuarantineCode.TOO_LARGE


def test_there_is_no_envelope_within_an_envelope() -> None:
    inner = encode({"payload": b64encode(BODY).decode(), "signature": SIGNATURE})
    twice = opened({"payload": b64encode(inner).decode(), "signature": sign(inner, KEY)})
    by_kombu = opened(
        {
            "body": b64encode(inner).decode(),
            "content-type": "application/json",
            "headers": {},
            "properties": {"body_encoding": "base64"},
        }
    )
    for message in (twice, by_kombu):
        assert message.body == inner
        assert code(message) is QuarantineCode.NOT_CLOUDEVENT
