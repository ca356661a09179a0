"""The commands: which data is valid, and when two commands are the same."""

import logging
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given

from events.commands import COMMAND_TYPES, AttemptUpdateStatus, Command, CommandData, LearnerUpsert, read_data
from events.errors import InvalidMessageError
from events.vocabulary import IfMissing, QuarantineCode, Status
from tests.unit.events import messages

UPDATE = "exam.attempt.update-status.v1"
LONG = "x" * 256
LONE_SURROGATE = "\ud800"

GOOD: list[tuple[str, dict[str, Any]]] = [
    (UPDATE, {"exam_id": 7}),
    (UPDATE, {"exam_id": -7}),
    (UPDATE, {"user_id": "x" * 255}),
    (UPDATE, {"user_id": "\U0001f600" * 255}),
    (UPDATE, {"to_status": None}),
    (UPDATE, {"to_status": ""}),
    (UPDATE, {"to_status": "verifed"}),
    (UPDATE, {"to_status": LONG}),
    (UPDATE, {"to_status": "\0"}),
    (UPDATE, {"to_status": LONE_SURROGATE}),
    (UPDATE, {"if_missing": "ignore"}),
    (UPDATE, {"cascade_effects": False}),
    (UPDATE, {"attempt_code": 5, "external_id": None}),
    (UPDATE, {"from_statuses": []}),
    (UPDATE, {"from_statuses": ["started", "started", "error"]}),
    (UPDATE, {"from_statuses": None}),
    ("exam.attempt.remove.v1", {"from_statuses": ["started"], "if_missing": "ignore"}),
    ("exam.attempt.create.v1", {"attempt_code": "x" * 255}),
    ("course.upsert.v1", {"gives_credit": False}),
    ("learner.upsert.v1", {"language": "es-419", "time_zone": "America/Argentina/Buenos_Aires"}),
    ("learner.upsert.v1", {"language": None, "time_zone": "Etc/GMT+5"}),
    ("exam.attempt.create.v1", {"external_id": 5}),
    ("exam.attempt.create.v1", {"external_id": None}),
    ("exam.attempt.remove.v1", {"requested_by": "the dean"}),
    ("exam.upsert.v1", {"time_limit_mins": 0}),
    ("exam.upsert.v1", {"time_limit_mins": 2**31 - 1}),
    ("exam.upsert.v1", {"exam_name": ""}),
    ("course.upsert.v1", {"name": "Ω" * 1000, "provider": "acme"}),
    ("learner.upsert.v1", {"email": "a+b@münchen.example"}),
]

# Pairs of an invalid value and the field that the error must name.
BAD: list[tuple[str, dict[str, Any], str]] = [
    (UPDATE, {"exam_id": ...}, "exam_id"),
    (UPDATE, {"exam_id": None}, "exam_id"),
    (UPDATE, {"exam_id": ""}, "exam_id"),
    (UPDATE, {"exam_id": LONG}, "exam_id"),
    (UPDATE, {"exam_id": 10**255}, "exam_id"),
    (UPDATE, {"exam_id": True}, "exam_id"),
    (UPDATE, {"exam_id": 7.0}, "exam_id"),
    (UPDATE, {"exam_id": ["7"]}, "exam_id"),
    (UPDATE, {"exam_id": "a\0b"}, "exam_id"),
    (UPDATE, {"user_id": LONE_SURROGATE}, "user_id"),
    (UPDATE, {"to_status": ...}, "to_status"),
    (UPDATE, {"to_status": 1}, "to_status"),
    (UPDATE, {"to_status": True}, "to_status"),
    (UPDATE, {"to_status": []}, "to_status"),
    (UPDATE, {"cascade_effects": 1}, "cascade_effects"),
    (UPDATE, {"cascade_effects": "true"}, "cascade_effects"),
    (UPDATE, {"if_missing": "Ignore"}, "if_missing"),
    (UPDATE, {"if_missing": None}, "if_missing"),
    (UPDATE, {"to_staus": "submitted"}, "to_staus"),
    (UPDATE, {"attempt_code": ""}, "attempt_code"),
    (UPDATE, {"attempt_code": LONG}, "attempt_code"),
    (UPDATE, {"from_statuses": "started"}, "from_statuses"),
    (UPDATE, {"from_statuses": ["started", "verifed"]}, "from_statuses"),
    (UPDATE, {"from_statuses": [None]}, "from_statuses"),
    (UPDATE, {"from_statuses": {"started": 1}}, "from_statuses"),
    ("course.upsert.v1", {"gives_credit": None}, "gives_credit"),
    ("learner.upsert.v1", {"language": "e s"}, "language"),
    ("learner.upsert.v1", {"language": "en\n"}, "language"),
    ("learner.upsert.v1", {"language": ""}, "language"),
    ("learner.upsert.v1", {"time_zone": "../etc/passwd"}, "time_zone"),
    ("learner.upsert.v1", {"time_zone": "Europe/"}, "time_zone"),
    (UPDATE, {LONE_SURROGATE: 1}, "a field's name"),
    ("exam.attempt.create.v1", {"external_id": ""}, "external_id"),
    ("exam.attempt.remove.v1", {"requested_by": 1}, "requested_by"),
    ("exam.upsert.v1", {"time_limit_mins": -1}, "time_limit_mins"),
    ("exam.upsert.v1", {"time_limit_mins": 2**31}, "time_limit_mins"),
    ("exam.upsert.v1", {"time_limit_mins": 1.5}, "time_limit_mins"),
    ("exam.upsert.v1", {"time_limit_mins": True}, "time_limit_mins"),
    ("exam.upsert.v1", {"exam_name": None}, "exam_name"),
    ("exam.upsert.v1", {"exam_name": "x" * 1001}, "exam_name"),
    ("exam.upsert.v1", {"learner_id": "1"}, "learner_id"),
    ("course.upsert.v1", {"name": "\0"}, "name"),
    ("learner.upsert.v1", {"username": ""}, "username"),
    ("learner.upsert.v1", {"username": LONG}, "username"),
    ("learner.upsert.v1", {"email": "ada"}, "email"),
    ("learner.upsert.v1", {"email": "@"}, "email"),
    ("learner.upsert.v1", {"email": "a@b@c"}, "email"),
    ("learner.upsert.v1", {"email": "a b@c"}, "email"),
    ("learner.upsert.v1", {"email": "a@b\r\nBcc: c@d"}, "email"),
    ("learner.upsert.v1", {"email": "a@b\x1b"}, "email"),
    ("learner.upsert.v1", {"email": "a@b\x7f"}, "email"),
    ("learner.upsert.v1", {"email": "a@b\x9c"}, "email"),
    ("learner.upsert.v1", {"email": "a@" + "b" * 253}, "email"),
]


def read(type_: str, fields: dict[str, Any]) -> CommandData:
    return read_data(COMMAND_TYPES[type_], messages.event_with(type_, **fields)["data"])


def refusal(type_: str, fields: dict[str, Any]) -> str:
    with pytest.raises(InvalidMessageError) as caught:
        read(type_, fields)
    assert caught.value.reason is QuarantineCode.INVALID_DATA
    return caught.value.detail


def update(**fields: Any) -> AttemptUpdateStatus:
    return AttemptUpdateStatus(**(messages.EXAMPLES[UPDATE] | fields))


def test_every_type_has_an_example() -> None:
    assert set(COMMAND_TYPES) == set(messages.EXAMPLES)


@pytest.mark.parametrize(("type_", "fields"), GOOD)
def test_valid_data_is_read(type_: str, fields: dict[str, Any]) -> None:
    assert type(read(type_, fields)) is COMMAND_TYPES[type_]


@pytest.mark.parametrize(("type_", "fields", "name"), BAD)
def test_invalid_data_is_refused_and_its_field_named(type_: str, fields: dict[str, Any], name: str) -> None:
    assert refusal(type_, fields).startswith(f"{name}: ")


def test_an_integer_id_is_its_decimal_string() -> None:
    data = read("exam.attempt.create.v1", {"exam_id": 7, "user_id": 42, "external_id": 0})

    assert data == read("exam.attempt.create.v1", {"exam_id": "7", "user_id": "42", "external_id": "0"})


def test_what_is_left_out_has_its_default() -> None:
    assert update() == update(cascade_effects=True, if_missing=IfMissing.REJECT)


def test_a_detail_never_quotes_a_value() -> None:
    # Given a message that is wrong in every field
    secret = "s3cret"
    fields = {"user_id": [secret], "username": secret * 100, "email": secret, "full_name": {"x": secret}}

    # When it is refused
    detail = refusal("learner.upsert.v1", fields)

    # Then each field is named, and nothing of what was sent is quoted
    assert all(name in detail for name in fields)
    assert secret not in detail


def test_a_detail_is_short_printable_and_storable_whatever_the_names() -> None:
    # Given names that would break a log or a database, and more of them than anyone reads
    fields = {f"{index}\0\né{'x' * 1000}": 1 for index in range(100)}

    detail = refusal("course.upsert.v1", fields)

    assert detail.isascii()
    assert detail.isprintable()
    assert len(detail) < 500
    assert detail.endswith("; and 95 more")


def test_personal_data_stays_out_of_logs(caplog: pytest.LogCaptureFixture) -> None:
    learner = LearnerUpsert(user_id="42", username="ada", email="ada@example.com", full_name="Ada Lovelace")

    with caplog.at_level(logging.INFO):
        logging.getLogger(__name__).info("%s", Command("/lms/acme", "1", learner))

    assert "42" in caplog.text
    assert "ada" not in caplog.text.lower()


@pytest.mark.parametrize("type_", COMMAND_TYPES)
def test_only_courses_and_exams_belong_to_no_learner(type_: str) -> None:
    expected = None if type_ in ("course.upsert.v1", "exam.upsert.v1") else "42"

    assert read(type_, {}).learner_id == expected


def test_a_status_may_be_given_as_a_status() -> None:
    assert update(to_status=Status.SUBMITTED) == update(to_status="submitted")


class TestFingerprint:
    """Two commands with the same (source, id) must ask for the same."""

    command = Command("/lms/acme", "1", update())

    def test_is_32_bytes(self) -> None:
        assert len(self.command.fingerprint().digest) == 32

    @pytest.mark.parametrize(
        "same",
        [
            update(exam_id=7),
            update(to_status=Status.SUBMITTED),
        ],
    )
    def test_is_equal_for_the_same_data(self, same: CommandData) -> None:
        assert replace(self.command, data=same).fingerprint() == self.command.fingerprint()

    def test_does_not_depend_on_the_time(self) -> None:
        later = replace(self.command, time=datetime.now(UTC))

        assert later.fingerprint() == self.command.fingerprint()

    @pytest.mark.parametrize(
        "other",
        [
            update(to_status=None),
            update(to_status=""),
            update(exam_id="8"),
            update(cascade_effects=False),
            update(if_missing="ignore"),
            update(cascade_effects=True),
            update(from_statuses=["started"]),
        ],
    )
    def test_differs_for_other_data(self, other: CommandData) -> None:
        assert not replace(self.command, data=other).fingerprint().matches(self.command.fingerprint())

    def test_differs_for_another_type_with_the_same_data(self) -> None:
        fields = {"exam_id": "7", "user_id": "42"}
        create, remove = read("exam.attempt.create.v1", fields), read("exam.attempt.remove.v1", fields)

        assert Command("s", "1", create).fingerprint() != Command("s", "1", remove).fingerprint()

    def test_stays_what_the_database_has_stored(self) -> None:
        # If a release changed fingerprints, every redelivered message would be taken for a reused id.
        expected = "226fd33c72095496e33bf2d60e76e703f721469bff14ebf2aa65685ff78d812e"

        assert self.command.fingerprint().digest.hex() == expected

    def test_an_older_release_has_not_stored_which_defaults_were_sent(self) -> None:
        stored = replace(self.command.fingerprint(), sent_defaults=None)
        spelt_out = replace(self.command, data=update(cascade_effects=True)).fingerprint()
        assert spelt_out.matches(stored)
        assert not replace(self.command, data=update(cascade_effects=False)).fingerprint().matches(stored)

    @given(messages.commands, messages.commands)
    def test_is_equal_if_and_only_if_type_and_data_are(self, one: Command, other: Command) -> None:
        same = (one.type, one.data) == (other.type, other.data)

        assert (one.fingerprint() == other.fingerprint()) is same
