"""Commands that are late, on a real PostgreSQL: which attempt they change, when, and what is known afterwards."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, text

from db import lookups
from db.ids import new_receipt
from db.inbox import Handled
from events.commands import Command, CommandData, CourseUpsert, ExamUpsert, LearnerUpsert
from events.vocabulary import Outcome, OutcomeCode
from tests import sample_commands as c
from worker.commands.decoding import Received
from worker.commands.handler import Handler
from worker.policies import Policies

HANDLER = Handler(Policies(), instructor=True)
SETUP = [c.course(), c.exam("A"), c.exam("B"), c.learner()]
NOW = datetime.now(UTC)
STALE = Handled(Outcome.REJECTED, OutcomeCode.STALE_ATTEMPT, OutcomeCode.STALE_ATTEMPT.detail)


@pytest.fixture(params=["one batch", "one by one"])
def in_one_batch(request: pytest.FixtureRequest) -> bool:
    return bool(request.param == "one batch")


def play(connection: Connection, commands: Sequence[Command], in_one_batch: bool = True) -> list[Handled]:
    """What became of commands, after all are handled."""
    stamped = [(one, new_receipt()) for one in commands]
    if in_one_batch:
        return c.apply(HANDLER, connection, stamped)
    return [handled for one in stamped for handled in c.apply(HANDLER, connection, [one])]


def ask(connection: Connection, *data: CommandData, time: datetime | None = None) -> list[Handled]:
    return play(connection, [replace(c.command(one), time=time) for one in data])


def attempts(connection: Connection) -> dict[str, dict[str, Any]]:
    """The live attempts by exam."""
    return {row["exam_id"]: row for row in lookups.attempts(connection, limit=100).attempts}


def credit(connection: Connection) -> dict[str, str]:
    """The last status that the credit service is told, by content."""
    rows = connection.execute(
        text(
            "SELECT payload ->> 'content_id' AS content, coalesce(payload ->> 'status', 'removed') AS status"
            " FROM effects WHERE kind IN ('set_credit_status', 'remove_credit_status') ORDER BY sequence"
        )
    )
    return {row.content: row.status for row in rows}


def settle(connection: Connection, exam_id: str, user_id: str) -> None:
    """Carry out the cascades that are owed: they come before a command of the learner, even a refused one."""
    ask(connection, c.update(exam_id, "none", user_id))


# --- which attempt -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [{"attempt_code": "first"}, {"external_id": "vendor-1"}])
@pytest.mark.parametrize("ignore", [True, False])
def test_a_command_for_a_removed_attempt_does_not_touch_its_successor(
    connection: Connection, name: dict[str, str], ignore: bool
) -> None:
    if_missing = {"if_missing": "ignore"} if ignore else {}
    ask(
        connection, *SETUP, c.create("A", attempt_code="first", external_id="vendor-1"), c.remove("A", **name)
    )
    stale = replace(STALE, outcome=Outcome.IGNORED) if ignore else STALE
    # whether there is no live attempt
    late = c.update("A", "verified", **name, **if_missing), c.remove("A", **name, **if_missing)
    assert ask(connection, *late) == [stale, stale]
    # or another one
    ask(connection, c.create("A", attempt_code="second", external_id="vendor-2"))
    assert ask(connection, *late) == [stale, stale]
    assert attempts(connection)["A"]["version"] == 1


def test_a_decline_clears_the_external_id_and_not_the_memory(
    connection: Connection, in_one_batch: bool
) -> None:
    named = [
        *SETUP,
        c.create("A", taking_as_proctored=True, external_id="vendor"),
        c.update("A", "declined", external_id="vendor"),
        c.update("A", "submitted", external_id="vendor"),
        c.update("A", "verified", external_id="another"),
    ]
    *_, submitted, stale = play(connection, [c.command(one) for one in named], in_one_batch)
    assert (submitted.outcome, stale) == (Outcome.APPLIED, STALE)
    assert attempts(connection)["A"]["external_id"] is None


def test_an_older_release_has_not_written_down_which_external_ids_an_attempt_had(
    connection: Connection,
) -> None:
    ask(connection, *SETUP, c.create("A", external_id="vendor"))
    connection.execute(text("UPDATE attempts SET external_ids = NULL"))
    [declined] = ask(connection, c.update("A", "declined", external_id="vendor"))
    [submitted] = ask(connection, c.update("A", "submitted", external_id="vendor"))
    assert (declined.outcome, submitted.outcome) == (Outcome.APPLIED, Outcome.APPLIED)


def test_the_code_of_an_attempt_is_its_id_unless_the_lms_chooses_one(connection: Connection) -> None:
    ask(connection, *SETUP, c.create("A", attempt_code="mine"), c.create("B"))
    mine, ours = attempts(connection)["A"], attempts(connection)["B"]
    assert (mine["attempt_code"], ours["attempt_code"]) == ("mine", str(ours["id"]))
    updated = ask(
        connection,
        c.update("A", "started", attempt_code="mine"),
        c.update("B", "started", attempt_code=str(ours["id"])),
        c.update("A", "submitted", attempt_code=str(mine["id"])),
    )
    assert [one.code for one in updated] == [None, None, OutcomeCode.STALE_ATTEMPT]


def test_a_code_is_used_once(connection: Connection, in_one_batch: bool) -> None:
    ask(connection, *SETUP, c.learner("43"), c.create("A"))
    ours = str(attempts(connection)["A"]["id"])
    commands = [
        c.create("B", attempt_code="code"),
        c.create("B", attempt_code="code"),
        c.create("A", "43", attempt_code="code"),
        c.remove("B"),
        c.create("B", attempt_code="code"),
        c.create("B", attempt_code=ours),
        c.create("B", attempt_code="another"),
    ]
    outcomes = play(connection, [c.command(one) for one in commands], in_one_batch)
    taken = OutcomeCode.ATTEMPT_CODE_TAKEN
    assert [one.code for one in outcomes] == [
        None,
        OutcomeCode.ATTEMPT_EXISTS,
        taken,
        None,
        taken,
        taken,
        None,
    ]


def test_a_command_may_say_what_it_expects(connection: Connection) -> None:
    ask(connection, *SETUP, c.create("A"))
    [failed] = ask(connection, c.remove("A", from_statuses=["submitted", "verified"]))
    assert failed == Handled(
        Outcome.IGNORED, OutcomeCode.PRECONDITION_FAILED, "created is not among from_statuses"
    )
    [applied] = ask(connection, c.remove("A", from_statuses=["created"]))
    assert applied.outcome is Outcome.APPLIED


# --- when --------------------------------------------------------------------------------------------------


def test_history_does_not_run_backwards(connection: Connection) -> None:
    earlier, later = NOW - timedelta(hours=2), NOW - timedelta(hours=1)
    ask(connection, *SETUP)
    ask(connection, c.create("A"), time=later)
    ask(connection, c.update("A", "started"), time=earlier)
    ask(connection, c.update("A", "submitted"), time=earlier)
    found = attempts(connection)["A"]
    assert (found["started_at"], found["completed_at"]) == (later, later)


def test_a_time_that_is_not_believed_is_that_of_handling(connection: Connection) -> None:
    ask(connection, *SETUP)
    for time in (None, NOW - timedelta(hours=25), NOW + timedelta(hours=1)):
        before = datetime.now(UTC)
        ask(connection, c.create("A"), c.update("A", "started"), time=time)
        assert before <= attempts(connection)["A"]["started_at"] <= datetime.now(UTC)
        ask(connection, c.remove("A"))


def test_a_cascade_happened_when_its_cause_did(connection: Connection) -> None:
    earlier = NOW - timedelta(hours=2)
    ask(connection, *SETUP)
    ask(connection, c.create("A"), c.update("A", "declined"), time=earlier)
    ask(connection, c.update("B", "started"), time=NOW)
    shown = lookups.attempt_history(connection, exam_id="B", user_id="42")["transitions"]
    assert [(one["to_status"], one["at"]) for one in shown] == [("created", earlier), ("declined", earlier)]


# --- what is known -----------------------------------------------------------------------------------------


DESCRIPTIONS = [
    ("courses", "course_id", {"course_id": "X"}, {"name": "N", "provider": "P", "gives_credit": False}),
    (
        "exams",
        "exam_id",
        {"exam_id": "X", "course_id": "c", "content_id": "x", "exam_name": "E"},
        {"is_proctored": False, "is_practice_exam": True, "is_active": False, "time_limit_mins": 9},
    ),
    (
        "learners",
        "user_id",
        {"user_id": "X", "username": "u", "email": "u@example.org"},
        {"full_name": "U", "language": "ar", "time_zone": "Africa/Cairo"},
    ),
]


@pytest.mark.parametrize(("table", "key", "required", "optional"), DESCRIPTIONS)
def test_a_field_that_is_left_out_keeps_what_is_known(
    connection: Connection,
    in_one_batch: bool,
    table: str,
    key: str,
    required: dict[str, str],
    optional: dict[str, Any],
) -> None:
    models: dict[str, type[CommandData]] = {
        "courses": CourseUpsert,
        "exams": ExamUpsert,
        "learners": LearnerUpsert,
    }
    model = models[table]
    parts = [required, *({**required, name: value} for name, value in optional.items()), required]
    play(connection, [c.command(model(**part)) for part in parts], in_one_batch)
    found = connection.execute(text(f"SELECT * FROM {table} WHERE {key} = 'X'")).mappings().one()
    assert {name: found[name] for name in optional} == optional
    # and what is sent counts, also if it is the default
    defaults = {name: model.model_fields[name].default for name in optional}
    play(connection, [c.command(model(**required, **defaults))], in_one_batch)
    found = connection.execute(text(f"SELECT * FROM {table} WHERE {key} = 'X'")).mappings().one()
    assert {name: found[name] for name in optional} == defaults


@pytest.mark.parametrize("model", [c.course, c.learner, lambda: c.exam("A")])
def test_a_description_that_was_overtaken_changes_nothing(
    connection: Connection, model: Any, in_one_batch: bool
) -> None:
    week = timedelta(days=7)
    times = [NOW - week, NOW - 2 * week, NOW - week, NOW + week, None, NOW - week]
    commands = [replace(c.command(model()), time=time) for time in times]
    applied, overtaken = None, OutcomeCode.OVERTAKEN
    found = [one.code for one in play(connection, commands, in_one_batch)]
    assert found == [applied, overtaken, applied, applied, applied, overtaken]


# --- cascades and removals ---------------------------------------------------------------------------------


def test_a_cascade_does_not_take_back_credit_that_the_exam_has_set_under_another_name(
    connection: Connection,
) -> None:
    ask(connection, *SETUP, c.create("A"), c.update("A", "verified"))
    ask(connection, c.exam("A", content_id="other"), c.exam("A2", content_id="content-A"))
    ask(connection, c.create("B"), c.update("B", "declined"))
    settle(connection, "B", "42")
    assert credit(connection) == {"content-A": "satisfied", "content-B": "failed"}


@pytest.mark.parametrize("by_older_release", [True, False])
def test_a_removal_removes_credit_under_the_names_that_it_was_set_with(
    connection: Connection, by_older_release: bool
) -> None:
    ask(connection, *SETUP, c.create("A"), c.update("A", "submitted"))
    ask(connection, c.exam("A", content_id="second"), c.update("A", "verified"))
    if by_older_release:
        connection.execute(text("UPDATE attempts SET credit_told = NULL"))
    ask(connection, c.exam("A", content_id="third"))
    ask(connection, c.remove("A"))
    removed = {"content-A": "removed", "second": "removed"}
    # Without a record the present name might be one of them.
    assert credit(connection) == removed | ({"third": "removed"} if by_older_release else {})


# --- what the outcome and the quarantine remember ----------------------------------------------------------


def test_every_outcome_remembers_whom_and_what_its_command_was_about(connection: Connection) -> None:
    commands: list[tuple[CommandData, tuple[str, str | None, str | None, str | None]]] = [
        (c.course(), ("applied", None, None, None)),
        (c.exam("A"), ("applied", None, "A", None)),
        (c.learner(), ("applied", "42", None, None)),
        (c.update("A", "verified"), ("rejected", "42", "A", "verified")),
        (c.create("A"), ("applied", "42", "A", None)),
        (c.create("A"), ("rejected", "42", "A", None)),
        (c.create("A", "43"), ("rejected", "43", "A", None)),
        (c.update("A", "started"), ("applied", "42", "A", "started")),
        (c.update("A", "started"), ("unchanged", "42", "A", "started")),
        (c.update("A", "submitted", from_statuses=[]), ("ignored", "42", "A", "submitted")),
        (c.update("Z", "started"), ("rejected", "42", "Z", "started")),
        (c.update("A", "\0" * 300), ("rejected", "42", "A", "�" * 255)),
        (c.update("A", None), ("rejected", "42", "A", None)),
        (c.remove("A", "43", if_missing="ignore"), ("ignored", "43", "A", None)),
        (c.remove("A"), ("applied", "42", "A", None)),
    ]
    received = [c.received(data, str(number)) for number, (data, _) in enumerate(commands)]
    c.handle(HANDLER, connection, received)
    c.handle(HANDLER, connection, received)  # a second delivery changes nothing
    found = {row["id"]: row for row in lookups.commands(connection)}
    remembered = [
        tuple(found[str(number)][name] for name in ("outcome", "user_id", "exam_id", "to_status"))
        for number in range(len(commands))
    ]
    assert remembered == [expected for _, expected in commands]
    assert len(found) == len(commands)
    [missing] = lookups.commands(connection, user_id="42", exam_id="Z", outcome=Outcome.REJECTED)
    assert missing["code"] == "exam_not_found"


def test_a_default_that_was_sent_is_not_the_same_as_one_that_was_left_out(connection: Connection) -> None:
    short = c.exam("A")
    spelt_out = c.exam("A", is_active=True)
    c.handle(
        HANDLER, connection, [c.received(short, "1"), c.received(short, "2"), c.received(spelt_out, "3")]
    )
    again = [c.received(spelt_out, "1"), c.received(short, "2"), c.received(short, "3")]
    found = c.handle(HANDLER, connection, again)
    assert [(one.source, one.command_id, one.code) for one in found.quarantined] == [
        ("/tests", "1", "id_reused"),
        ("/tests", "3", "id_reused"),
    ]
    # An older release has not written it down.
    connection.execute(text("UPDATE inbox SET sent_defaults = NULL"))
    assert c.handle(HANDLER, connection, again).quarantined == []
    other: Received = c.received(c.exam("A", is_active=False), "1")
    assert len(c.handle(HANDLER, connection, [other]).quarantined) == 1
