"""What an id names is found, whatever sort of id it is."""

import pytest
from sqlalchemy import Engine

from db import search
from db.search import Found, Kind
from tests import sample_commands as c
from tests.integration.cli.conftest import Record


@pytest.fixture
def record(engine: Engine) -> Record:
    record = Record(engine)
    record.handle(
        c.received(c.course(), "course"),
        c.received(c.exam("7"), "exam"),
        c.received(c.learner("42"), "learner"),
        c.received(c.create("7", "42", attempt_code="code-1", external_id="software-1"), "create"),
        c.received(c.update("7", "submitted", "42"), "submit"),
        c.received(c.update("9", "submitted", "gone"), "refused"),
    )
    return record


def find(record: Record, text: str, limit: int = 20) -> list[Found]:
    with record.engine.connect() as connection:
        return list(search.find(connection, text, limit))


@pytest.mark.parametrize(
    ("text", "kind", "label"),
    [
        ("42", Kind.LEARNER, ""),
        (" 42\n", Kind.LEARNER, ""),
        ("gone", Kind.LEARNER, ""),
        ("7", Kind.EXAM, "Exam 7"),
        (c.COURSE, Kind.COURSE, "Physics"),
        ("code-1", Kind.ATTEMPT, "exam 7 · learner 42 · submitted"),
        ("software-1", Kind.ATTEMPT, "exam 7 · learner 42 · submitted"),
        ("refused", Kind.COMMAND, "exam.attempt.update-status.v1 · rejected"),
    ],
)
def test_an_id_finds_what_it_names(record: Record, text: str, kind: Kind, label: str) -> None:
    [found] = find(record, text)
    assert (found.kind, found.label) == (kind, label)


def test_an_attempt_is_found_by_its_uuid_as_people_write_it(record: Record) -> None:
    with record.engine.connect() as connection:
        attempt_id = connection.exec_driver_sql("SELECT id::text FROM attempts").scalar_one()
    [found] = find(record, attempt_id.upper())
    assert (found.kind, found.id) == (Kind.ATTEMPT, "code-1")


def test_an_effect_is_found_by_its_id(record: Record) -> None:
    effect_id = str(record.effect_ids()[0])
    [found] = find(record, effect_id)
    assert (found.kind, found.id) == (Kind.EFFECT, effect_id)
    assert found.label.endswith(" · pending")


def test_a_course_that_only_an_exam_names(record: Record) -> None:
    record.execute("DELETE FROM courses")
    assert find(record, c.COURSE) == [Found(Kind.COURSE, c.COURSE, None, "")]


def test_a_message_in_quarantine_is_found_by_its_number_and_by_its_command(record: Record) -> None:
    record.quarantine(b"{", source="/lms", command_id="lost")
    record.quarantine(b"{")
    first, second = record.quarantine_ids()
    assert find(record, "lost") == [Found(Kind.QUARANTINED, str(first), "/lms", "not_json")]
    assert find(record, str(second)) == [Found(Kind.QUARANTINED, str(second), None, "not_json")]


def test_everything_with_one_id_comes_in_a_stable_order(record: Record) -> None:
    # Given an id that names one of everything, and commands of several senders
    record.handle(
        c.received(c.exam("42", course_id="42"), "42"),
        c.received(c.create("42", "42", attempt_code="42")),
    )
    record.execute(
        "INSERT INTO inbox (source, command_id, type, fingerprint)"
        " SELECT 's' || n, '42', 'course.upsert.v1', sha256('') FROM generate_series(1, 3) AS n"
    )
    record.quarantine(b"{", source="/b", command_id="42")
    record.quarantine(b"{", source="/a", command_id="42")
    expected = [
        (Kind.LEARNER, None),
        (Kind.EXAM, None),
        (Kind.COURSE, None),
        (Kind.ATTEMPT, None),
        (Kind.COMMAND, "/tests"),
        (Kind.COMMAND, "s1"),
        (Kind.COMMAND, "s2"),
        (Kind.COMMAND, "s3"),
        (Kind.QUARANTINED, "/a"),
        (Kind.QUARANTINED, "/b"),
    ]
    assert [(one.kind, one.source) for one in find(record, "42")] == expected
    assert [(one.kind, one.source) for one in find(record, "42", limit=3)] == expected[:3]


@pytest.mark.parametrize("text", ["", "  ", "nobody", "9" * 30, "a\x00b", "\ud800"])
def test_nothing_has_this_id(record: Record, text: str) -> None:
    assert find(record, text) == []
