"""Parsing and rendering: any bytes give a command or an `InvalidMessageError`."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from events.commands import AttemptUpdateStatus, Command
from events.envelope import MAX_BODY_BYTES, parse, render
from events.errors import InvalidMessageError
from events.vocabulary import QuarantineCode
from tests.unit.events import messages
from tests.unit.events.messages import encode, event, event_with

NOT_JSON, NOT_CLOUDEVENT = QuarantineCode.NOT_JSON, QuarantineCode.NOT_CLOUDEVENT
LONE_SURROGATE = "\ud800"


def refusal(body: bytes, content_type: str | None = None) -> InvalidMessageError:
    with pytest.raises(InvalidMessageError) as caught:
        parse(body, content_type)
    return caught.value


def test_the_contracts_example_is_read() -> None:
    body = b"""
        {"specversion": "1.0", "id": "5f0c", "source": "/lms/acme", "type": "exam.attempt.update-status.v1",
         "time": "2026-03-01T09:00:00Z",
         "data": {"exam_id": "7", "user_id": "42", "to_status": "submitted"}}"""

    assert parse(body, "application/cloudevents+json") == Command(
        source="/lms/acme",
        id="5f0c",
        data=AttemptUpdateStatus(exam_id="7", user_id="42", to_status="submitted"),
        time=datetime(2026, 3, 1, 9, tzinfo=UTC),
    )


@pytest.mark.parametrize("type_", messages.EXAMPLES)
def test_every_type_is_read(type_: str) -> None:
    assert parse(encode(event(type_))).type == type_


@pytest.mark.parametrize(
    "attributes",
    [
        {"id": "x" * 255},
        {"source": "x" * 255},
        {"time": None},
        {"datacontenttype": None},
        {"datacontenttype": "application/json"},
        {"datacontenttype": "application/vnd.acme+JSON; charset=utf-8"},
        {"subject": "x", "traceparent": LONE_SURROGATE, "anything": {"deep": [1.5]}},
    ],
)
def test_other_valid_events_are_read(attributes: dict[str, Any]) -> None:
    assert parse(encode(event(**attributes))).data == parse(encode(event())).data


def test_an_integer_id_is_its_decimal_string() -> None:
    assert parse(encode(event(id=7))) == parse(encode(event(id="7")))


class TestSize:
    """The size limit, which is checked first."""

    def test_the_largest_body_is_read(self) -> None:
        body = encode(event())

        assert parse(body.ljust(MAX_BODY_BYTES)) == parse(body)

    def test_one_byte_more_is_refused(self) -> None:
        error = refusal(b"\xff" * (MAX_BODY_BYTES + 1), "text/html")

        assert error.reason is QuarantineCode.TOO_LARGE


class TestContentType:
    """The content type, which must be right if there is one."""

    @pytest.mark.parametrize(
        "content_type",
        [
            None,
            "",
            "application/json",
            "application/cloudevents+json",
            "Application/CloudEvents+JSON",
            "application/cloudevents+json; charset=utf-8",
            'application/json;foo=bar; Charset="UTF-8"',
        ],
    )
    def test_json_is_read(self, content_type: str | None) -> None:
        assert parse(encode(event()), content_type)

    @pytest.mark.parametrize(
        "content_type",
        [
            "text/plain",
            "application/cloudevents-batch+json",
            "application/x-python-serialize",
            "application/json; charset=latin-1",
            ";",
            5,
        ],
    )
    def test_anything_else_is_refused(self, content_type: Any) -> None:
        error = refusal(b"\xff", content_type)

        assert error.reason is NOT_CLOUDEVENT
        assert error.detail.startswith("content type: ")


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        (b"", "line 1 column 1"),
        (b"{", "line 1 column 2"),
        (b"\xff{}", "not UTF-8 at byte 0"),
        (b'"\xed\xa0\x80"', "not UTF-8 at byte 1"),
        (b"\xef\xbb\xbf{}", "line 1 column 1"),
        (encode(event()).decode().encode("utf-16"), "not UTF-8"),
        (b"[" * MAX_BODY_BYTES, "nested too deeply"),
        (b'{"a":' * 10_000, "nested too deeply"),
        (b"9" * 5000, "a number is too long"),
        (b'{"x": NaN}', "NaN is not JSON"),
        (b"[-Infinity]", "-Infinity is not JSON"),
        (b'{"data": {"exam_id": 1, "exam_id": 2}}', "exam_id: is there twice"),
        (b'{"id": 1, "\\u0069d": 1}', "id: is there twice"),
        (b"{} {}", "line 1 column 4"),
    ],
)
def test_what_is_not_json_is_refused(body: bytes, detail: str) -> None:
    error = refusal(body)

    assert error.reason is NOT_JSON
    assert detail in error.detail


@pytest.mark.parametrize("body", [b"[]", b"null", b'"x"', b"1"])
def test_what_is_no_object_is_no_cloudevent(body: bytes) -> None:
    assert refusal(body).reason is NOT_CLOUDEVENT


@pytest.mark.parametrize("name", ["specversion", "id", "source", "type"])
@pytest.mark.parametrize("value", [..., None, "", True, 1.0, [], {}, LONE_SURROGATE])
def test_a_required_attribute_that_is_wrong_is_named(name: str, value: Any) -> None:
    error = refusal(encode(event(**{name: value})))

    assert error.reason is NOT_CLOUDEVENT
    assert error.detail.startswith(f"{name}: ")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("specversion", "0.3"),
        ("id", "x" * 256),
        ("id", "a\0"),
        ("source", "x" * 256),
        ("source", 1),
        ("source", "\0"),
        ("type", 1),
        ("datacontenttype", "text/xml"),
        ("datacontenttype", "json"),
        ("datacontenttype", 1),
    ],
)
def test_an_attribute_that_is_wrong_is_named(name: str, value: Any) -> None:
    error = refusal(encode(event(**{name: value})))

    assert error.reason is NOT_CLOUDEVENT
    assert error.detail.startswith(f"{name}: ")


class TestTime:
    """Times, which must be RFC 3339 timestamps."""

    @pytest.mark.parametrize(
        ("text", "time"),
        [
            ("2026-03-01T09:00:00Z", datetime(2026, 3, 1, 9, tzinfo=UTC)),
            ("2026-03-01t09:00:00z", datetime(2026, 3, 1, 9, tzinfo=UTC)),
            ("2026-03-01T09:00:00+02:30", datetime(2026, 3, 1, 6, 30, tzinfo=UTC)),
            ("2026-03-01T09:00:00-00:00", datetime(2026, 3, 1, 9, tzinfo=UTC)),
            ("2026-03-01T09:00:00.5Z", datetime(2026, 3, 1, 9, 0, 0, 500_000, tzinfo=UTC)),
            ("2026-03-01T09:00:00.123456789Z", datetime(2026, 3, 1, 9, 0, 0, 123_456, tzinfo=UTC)),
            ("2016-12-31T23:59:60Z", datetime(2016, 12, 31, 23, 59, 59, tzinfo=UTC)),
        ],
    )
    def test_is_read(self, text: str, time: datetime) -> None:
        assert parse(encode(event(time=text))).time == time

    @pytest.mark.parametrize(
        "value",
        [
            "",
            "2026-03-01",
            "2026-03-01T09:00:00",
            "2026-03-01 09:00:00Z",
            "2026-03-01T09:00Z",
            "20260301T090000Z",
            "2026-03-01T09:00:00,5Z",
            "2026-03-01T09:00:00+0200",
            "2026-03-01T09:00:00+24:00",
            "2026-03-01T24:00:00Z",
            "2026-03-01T09:00:61Z",
            "2026-02-30T09:00:00Z",
            "0000-01-01T00:00:00Z",
            "0001-01-01T00:00:00+01:00",
            "9999-12-31T23:59:59-01:00",
            "２026-03-01T09:00:00Z",
            "2026-03-01T09:00:00Z\n",
            1_772_355_600,
            True,
        ],
    )
    def test_that_is_none_is_refused(self, value: Any) -> None:
        error = refusal(encode(event(time=value)))

        assert error.reason is NOT_CLOUDEVENT
        assert error.detail.startswith("time: ")


@pytest.mark.parametrize("type_", ["exam.upsert.v2", "EXAM.UPSERT.V1", "x" * 1000, "\0"])
def test_an_unknown_type_is_refused_without_quoting_it(type_: str) -> None:
    error = refusal(encode(event(type_, data=...)))

    assert error.reason is QuarantineCode.UNKNOWN_TYPE
    assert type_ not in error.detail


@pytest.mark.parametrize("data", [..., None, [], "x", 1])
def test_data_that_is_no_object_is_refused(data: Any) -> None:
    error = refusal(encode(event(data=data)))

    assert (error.reason, error.detail) == (QuarantineCode.INVALID_DATA, "data: must be an object")


def test_data_that_is_invalid_is_refused() -> None:
    error = refusal(encode(event_with(exam_id=None)))

    assert (error.reason, error.detail) == (
        QuarantineCode.INVALID_DATA,
        "exam_id: Input should be a valid string",
    )


@given(messages.commands)
def test_what_is_written_is_read_back(command: Command) -> None:
    assert parse(render(command)) == command


def test_what_is_written_is_compact_utf_8_json() -> None:
    data = {"course_id": "c1", "name": "Größe"}
    command = parse(encode(event("course.upsert.v1", time="2026-03-01T10:00:00+01:00", data=data)))

    assert render(command).decode("utf-8") == (
        '{"specversion":"1.0","id":"1","source":"/lms/acme","type":"course.upsert.v1",'
        '"time":"2026-03-01T09:00:00Z","data":{"course_id":"c1","name":"Größe"}}'
    )


def test_a_time_without_an_offset_is_not_written() -> None:
    command = Command("/lms/acme", "1", parse(encode(event())).data, datetime(2026, 3, 1))  # noqa: DTZ001

    with pytest.raises(InvalidMessageError, match="time: must have an offset"):
        render(command)


def test_a_time_that_is_text_is_not_written() -> None:
    command = Command("/lms/acme", "1", parse(encode(event())).data, "2026-03-01T09:00:00Z")  # type: ignore[arg-type]

    with pytest.raises(InvalidMessageError, match="time: must be a datetime with an offset from UTC"):
        render(command)


def test_what_cannot_be_read_back_is_written_all_the_same() -> None:
    command = Command(LONE_SURROGATE, "1", parse(encode(event())).data)

    assert refusal(render(command)).reason is NOT_JSON


def parses_or_is_refused(body: bytes) -> None:
    try:
        command = parse(body)
    except InvalidMessageError as error:
        assert error.detail.encode("utf-8")  # noqa: PT017
        assert "\0" not in error.detail  # noqa: PT017
    else:
        assert parse(render(command)) == command


@given(st.binary())
def test_arbitrary_bytes_never_surprise(body: bytes) -> None:
    parses_or_is_refused(body)


@given(messages.json_values)
def test_arbitrary_json_never_surprises(value: object) -> None:
    parses_or_is_refused(encode(value))


@given(
    st.dictionaries(st.sampled_from(sorted(event())) | messages.any_text, messages.json_values, max_size=4)
)
def test_arbitrary_attributes_never_surprise(attributes: dict[str, Any]) -> None:
    parses_or_is_refused(encode(event() | attributes))


@given(st.sampled_from(sorted(messages.EXAMPLES)), st.data())
def test_arbitrary_fields_never_surprise(type_: str, draw: st.DataObject) -> None:
    names = st.sampled_from(sorted(messages.EXAMPLES[type_])) | messages.any_text
    fields = draw.draw(st.dictionaries(names, messages.json_values, max_size=4))

    parses_or_is_refused(encode(event(type_, data=messages.EXAMPLES[type_] | fields)))


@given(messages.commands, st.data())
def test_a_message_that_is_cut_or_changed_never_surprises(command: Command, draw: st.DataObject) -> None:
    body = bytearray(render(command))
    position = draw.draw(st.integers(0, len(body) - 1))
    body[position : position + draw.draw(st.integers(0, 10))] = draw.draw(st.binary(max_size=5))

    parses_or_is_refused(bytes(body))


def test_json_escapes_are_read() -> None:
    body = json.dumps(event_with("course.upsert.v1", name="\U0001f600")).encode("ascii")

    assert parse(body).data.model_dump()["name"] == "\U0001f600"
