"""What a person may ask of the record."""

import re
from datetime import UTC, datetime
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Engine
from sqlalchemy.engine import make_url

from tests import sample_commands as c
from tests.commandline import CommandLine
from tests.integration.cli.conftest import Record
from worker.kinds import EffectKind

ATTEMPT = [
    "id",
    "exam_id",
    "user_id",
    "attempt_code",
    "status",
    "taking_as_proctored",
    "is_sample_attempt",
    "external_id",
    "started_at",
    "completed_at",
    "version",
    "removed_at",
]
EFFECT = [
    "id",
    "kind",
    "state",
    "tries",
    "target",
    "order_key",
    "due_at",
    "last_error",
    "cause",
    "failed_at",
    "created_at",
    "done_at",
    "superseded_by",
    "waits_for",
]
LISTED = [
    *EFFECT,
    *("user_id", "attempt_code", "exam_id", "source", "command_id", "subscriber", "label", "paused"),
]
COMMAND = [
    *("source", "id", "type", "outcome", "code", "detail", "handled_at"),
    *("user_id", "exam_id", "to_status", "attempt_code", "external_id"),
]


def is_time(text: str) -> bool:
    return text.endswith("Z") and datetime.fromisoformat(text).tzinfo == UTC


def test_an_attempt_with_its_history_and_effects(cli: CommandLine, record: Record) -> None:
    # Given a learner who has submitted
    record.handle(
        c.received(c.create("A", taking_as_proctored=True, external_id="EXT"), "create"),
        c.received(c.update("A", "started"), "start"),
        c.received(c.update("A", "submitted"), "submit"),
    )
    # When the attempt is asked for
    ran = cli("attempts", "show", "--exam", "A", "--user", 42, "--json")
    # Then everything about it is there
    assert (ran.status, ran.err) == (0, "")
    assert list(ran.json) == ["attempt", "transitions", "effects"]
    attempt = ran.json["attempt"]
    assert list(attempt) == ATTEMPT
    assert (attempt["status"], attempt["version"], attempt["external_id"]) == ("submitted", 3, "EXT")
    assert attempt["taking_as_proctored"] is True
    assert is_time(attempt["started_at"])
    assert is_time(attempt["completed_at"])
    assert attempt["removed_at"] is None
    history = [(step["from_status"], step["to_status"]) for step in ran.json["transitions"]]
    assert history == [(None, "created"), ("created", "started"), ("started", "submitted")]
    last = ran.json["transitions"][-1]
    assert list(last) == ["from_status", "to_status", "at", "recorded_at", "source", "command_id"]
    assert (last["source"], last["command_id"]) == ("/tests", "submit")
    assert is_time(last["at"])
    assert is_time(last["recorded_at"])
    assert [effect["kind"] for effect in ran.json["effects"]] == ["set_credit_status", "send_status_email"]
    assert list(ran.json["effects"][0]) == EFFECT


def test_an_attempt_is_shown_by_its_code_and_its_id(cli: CommandLine, record: Record) -> None:
    # Given a removed attempt and its successor
    record.handle(c.received(c.create("A", attempt_code="first")), c.received(c.remove("A")))
    record.handle(c.received(c.create("A")))
    live = cli("attempts", "show", "--exam", "A", "--user", "42", "--json").json["attempt"]
    assert live["attempt_code"] == live["id"]
    removed = cli("attempts", "show", "--code", "first", "--json").json["attempt"]
    assert removed["removed_at"] is not None
    for way in (("--code", live["id"]), ("--id", live["id"])):
        assert cli("attempts", "show", *way, "--json").json["attempt"] == live
    assert cli("attempts", "show", "--code", "never", "--json").status == 1
    assert cli("attempts", "show", "--exam", "A").status == 2


def test_an_attempt_that_never_was(cli: CommandLine, record: Record) -> None:
    show = ("attempts", "show", "--exam", "A", "--user", "42")
    ran = cli(*show, "--json")
    assert (ran.status, ran.json) == (1, {"attempt": None, "transitions": [], "effects": []})
    assert ran.err.startswith("invigilator: no such attempt; ")
    assert ran.err.count("\n") == 1
    # And a person is told the same
    assert (cli(*show).status, cli(*show).out) == (1, "attempt: -\ntransitions: none\neffects: none\n")


def test_the_last_removed_attempt_is_shown_until_there_is_a_live_one(
    cli: CommandLine, record: Record
) -> None:
    show = ("attempts", "show", "--exam", "A", "--user", "42", "--json")
    # Given two attempts, both removed
    record.handle(c.received(c.create("A", external_id="first")), c.received(c.remove("A")))
    record.handle(c.received(c.create("A", external_id="second")), c.received(c.remove("A")))
    removed = cli(*show).json["attempt"]
    assert removed["external_id"] == "second"
    assert is_time(removed["removed_at"])
    # When there is a third, then that is shown
    record.handle(c.received(c.create("A", external_id="third")))
    assert cli(*show).json["attempt"]["external_id"] == "third"


def test_listing_attempts(cli: CommandLine, record: Record) -> None:
    # Given attempts of two learners in two courses, one of them removed
    record.handle(
        c.received(c.exam("X", course_id="course-2")),
        c.received(c.learner("43")),
        c.received(c.create("A")),
        c.received(c.create("B")),
        c.received(c.create("X")),
        c.received(c.create("A", "43")),
        c.received(c.update("A", "started", "43")),
        c.received(c.remove("B")),
    )

    def listed(*arguments: str) -> list[str]:
        ran = cli("attempts", "list", "--json", *arguments)
        assert (ran.status, ran.err) == (0, "")
        return [f"{row['exam_id']}{row['user_id']}" for row in ran.lines]

    # Then each filter finds its own, oldest first
    assert listed() == ["A42", "X42", "A43"]
    assert listed("--removed") == ["A42", "B42", "X42", "A43"]
    assert listed("--course", c.COURSE) == ["A42", "A43"]
    assert listed("--exam", "A", "--user", "43") == ["A43"]
    assert listed("--status", "started") == ["A43"]
    assert listed("--limit", "2") == ["A42", "X42"]
    assert listed("--user", "nobody") == []
    assert list(cli("attempts", "list", "--json").lines[0]) == ATTEMPT


def test_a_long_list_comes_whole_as_json_and_cut_as_a_table(cli: CommandLine, record: Record) -> None:
    # Given more attempts than are fetched at a time
    learners = [str(number) for number in range(600)]
    record.handle(*(c.received(c.learner(user)) for user in learners))
    record.handle(*(c.received(c.create("A", user)) for user in learners))
    # When they are listed
    assert len(cli("attempts", "list", "--json").lines) == 600
    # Then a person gets a hundred, and is told
    table = cli("attempts", "list")
    assert len(table.out.splitlines()) == 101
    assert table.err == "invigilator: 100 rows are shown; for more use --limit or --json\n"
    assert len(cli("attempts", "list", "--limit", "200").out.splitlines()) == 201


def test_a_command(cli: CommandLine, record: Record) -> None:
    # Given a command that was rejected
    record.handle(c.received(c.update("A", "started"), "too-early"))
    # When it is shown
    ran = cli("commands", "show", "--source", "/tests", "--id", "too-early", "--json")
    # Then it says why
    assert (ran.status, ran.err) == (0, "")
    assert list(ran.json) == COMMAND
    assert is_time(ran.json.pop("handled_at"))
    assert ran.json["type"] == "exam.attempt.update-status.v1"
    assert (ran.json["user_id"], ran.json["exam_id"], ran.json["to_status"]) == ("42", "A", "started")
    assert (ran.json["outcome"], ran.json["code"]) == ("rejected", "attempt_not_found")
    assert ran.json["detail"]


def test_commands_are_found_by_learner_and_exam(cli: CommandLine, record: Record) -> None:
    record.handle(c.received(c.update("A", "started"), "1"), c.received(c.update("B", "started", "43"), "2"))
    rejected = ("commands", "list", "--outcome", "rejected", "--json")
    for way, expected in (
        (("--user", "42", "--exam", "A"), "1"),
        (("--user", "43"), "2"),
        (("--exam", "B"), "2"),
    ):
        assert [line["id"] for line in cli(*rejected, *way).lines] == [expected]


def test_a_command_shows_how_it_named_its_attempt(cli: CommandLine, record: Record) -> None:
    named = {"attempt_code": "code-1", "external_id": "software-1"}
    record.handle(c.received(c.update("A", "started", **named), "1"), c.received(c.exam("A"), "2"))
    one, other = cli("commands", "list", "--user", "42", "--exam", "A", "--json").lines, named.keys()
    assert {name: one[0][name] for name in other} == named
    exam = cli("commands", "show", "--source", "/tests", "--id", "2", "--json").json
    assert {exam[name] for name in other} == {None}


def test_a_command_in_quarantine(cli: CommandLine, record: Record) -> None:
    # Given two messages whose sender and id can be read
    for command_id in ("7", "8"):
        record.quarantine(b"{}", source="/lms", command_id=command_id)
    # Then they are found by these
    ran = cli("commands", "show", "--source", "/lms", "--id", "8", "--json")
    assert (ran.json["outcome"], ran.json["code"], ran.json["quarantine_id"]) == (
        "quarantined",
        "not_json",
        2,
    )
    listed = cli("quarantine", "list", "--source", "/lms", "--id", "8", "--json").lines
    assert [(one["id"], one["source"], one["command_id"]) for one in listed] == [(2, "/lms", "8")]
    assert cli("quarantine", "list", "--source", "/other", "--json").lines == []


def test_a_command_that_was_never_seen(cli: CommandLine, record: Record) -> None:
    ran = cli("commands", "show", "--source", "/other", "--id", "learner", "--json")
    assert (ran.status, ran.out) == (1, "")
    assert "no command with this source and id was handled" in ran.err


def test_listing_commands(cli: CommandLine, record: Record) -> None:
    record.handle(c.received(c.update("A", "started"), "early"))
    record.handle(c.received(c.create("A"), "create"), c.received(c.update("A", "bad"), "bad"))

    def listed(*arguments: str) -> list[str]:
        return [row["id"] for row in cli("commands", "list", "--json", *arguments).lines]

    assert listed() == ["bad", "create", "early", "learner", "exam-B", "exam-A", "course"]
    assert listed("--outcome", "rejected") == ["bad", "early"]
    assert listed("--code", "attempt_not_found") == ["early"]
    assert listed("--limit", "1") == ["bad"]


def test_effects(cli: CommandLine, record: Record) -> None:
    # Given a mail that failed at its second try, and a credit that is done
    record.handle(c.received(c.create("A", taking_as_proctored=True)), c.received(c.update("A", "submitted")))
    credit, mail = record.effect_ids()
    record.set_state(credit, "done")
    record.set_state(mail, "failed")
    record.execute("UPDATE effects SET tries = 2, last_error = 'refused' WHERE id = :id", id=mail)
    record.execute(
        "INSERT INTO tries VALUES (:id, 1, now(), now(), 'retry', 'busy'), (:id, 2, now(), now(), 'failed', 'no')",
        id=mail,
    )
    # When they are listed
    rows = cli("effects", "list", "--json").lines
    # Then the newest is first, and filters find theirs
    assert [row["id"] for row in rows] == [str(mail), str(credit)]
    assert list(rows[0]) == LISTED
    assert rows[0]["label"] == "mail submitted · exam A · learner 42"
    assert (rows[0]["tries"], rows[0]["last_error"], rows[0]["target"]) == (2, "refused", None)
    assert is_time(rows[1]["done_at"])
    done = cli("effects", "list", "--state", "done", "--kind", "set_credit_status", "--json").lines
    assert [row["id"] for row in done] == [str(credit)]
    assert cli("effects", "list", "--limit", "1", "--json").lines == rows[:1]
    # When one is shown, then its tries and its payload are there
    shown = cli("effects", "show", mail, "--json").json
    assert set(shown) == {
        *EFFECT,
        "payload",
        "tries",
        "superseded_by_command",
        "paused",
        "event_id",
        "sent_with",
    }
    assert shown["sent_with"] == f"Message-ID: <{shown['id']}@…>"
    assert (shown["superseded_by"], shown["superseded_by_command"]) == (None, None)
    assert [(one["number"], one["result"], one["error"]) for one in shown["tries"]] == [
        (1, "retry", "busy"),
        (2, "failed", "no"),
    ]
    assert list(shown["tries"][0]) == ["number", "started_at", "finished_at", "result", "error"]
    assert shown["payload"]["status"] == "submitted"
    assert is_time(shown["tries"][0]["started_at"])


def test_a_superseded_effect_names_what_took_its_place(cli: CommandLine, record: Record) -> None:
    # Given five effects on one target: the second was cancelled before the first was looked at, the fourth after it
    record.handle(c.received(c.create("A")))
    for number, status in enumerate(("submitted", "verified", "submitted", "verified"), 1):
        record.handle(c.received(c.update("A", status), f"command {number}"))
    first, second, third, fourth = record.effect_ids(EffectKind.SET_CREDIT_STATUS)
    cli("effects", "cancel", second)
    record.execute(
        "UPDATE effects SET state = 'superseded', dropped_at = clock_timestamp() WHERE id = :id", id=first
    )
    cli("effects", "cancel", fourth)
    record.handle(c.received(c.update("A", "submitted"), "later"))
    later = record.effect_ids(EffectKind.SET_CREDIT_STATUS)[-1]
    record.execute(
        "UPDATE effects SET state = 'superseded', dropped_at = clock_timestamp() WHERE id = :id", id=third
    )

    def superseded_by(effect_id: UUID) -> tuple[str, dict[str, str]]:
        shown = cli("effects", "show", effect_id, "--json").json
        return shown["superseded_by"], shown["superseded_by_command"]

    # Then each names the newest one that there was, and its command
    assert superseded_by(first) == (str(fourth), {"source": "/tests", "id": "command 4"})
    assert superseded_by(third) == (str(later), {"source": "/tests", "id": "later"})
    # And lists name it, for the superseded ones only
    listed = {row["id"]: row["superseded_by"] for row in cli("effects", "list", "--json").lines}
    assert {id_: by for id_, by in listed.items() if by} == {str(first): str(fourth), str(third): str(later)}
    assert f"superseded_by: {fourth}" in cli("effects", "show", first).out


def test_an_effect_that_is_not_there(cli: CommandLine, record: Record) -> None:
    ran = cli("effects", "show", uuid4(), "--json")
    assert (ran.status, ran.out) == (1, "")
    assert ran.err.startswith("invigilator: no such effect")


@pytest.mark.parametrize("group", ["attempts", "commands", "effects", "quarantine"])
def test_an_empty_list_is_no_line_of_json(cli: CommandLine, engine: Engine, group: str) -> None:
    ran = cli(group, "list", "--json")
    assert (ran.status, ran.out, ran.err) == (0, "", "")
    ran = cli(group, "list")
    assert (ran.status, ran.err) == (0, "")
    assert re.fullmatch(r"no [a-z ]+\n", ran.out)


def test_a_person_reads_the_same_without_json(cli: CommandLine, record: Record) -> None:
    # Given something of everything, and an error that would colour the terminal
    record.handle(c.received(c.create("A")), c.received(c.update("A", "submitted"), "submit"))
    [credit] = record.effect_ids()
    record.execute("UPDATE effects SET last_error = E'no [red]way\\n\\x1b[31m'")
    record.quarantine(b"\xff\x00\x1b")
    # When a person looks
    attempt = cli("attempts", "show", "--exam", "A", "--user", "42").out
    effects = cli("effects", "list", "--limit", "1")
    effect = cli("effects", "show", credit).out
    # Then it is readable, whole and harmless
    assert "status: submitted" in attempt
    assert "transitions:" in attempt
    assert "removed_at: -" in attempt
    assert "[red]" in effects.out
    assert "waits_for" in effects.out
    assert effects.err == ""
    assert "last_error: no [red]way �[31m" in effect
    assert "tries: none" in effect
    assert "exam_id: A" in effect
    assert "outcome: applied" in cli("commands", "show", "--source", "/tests", "--id", "submit").out
    assert "body_encoding: base64" in cli("quarantine", "show", 1).out
    assert "is no JSON" in cli("quarantine", "list").out


def test_the_quarantine(cli: CommandLine, record: Record) -> None:
    # Given a message that is text and one that is not
    record.quarantine(b"caf\xc3\xa9", {"content-type": "text/plain", "x": "1"})
    record.quarantine(b"\xff\x00")
    # When they are listed, then it is known what they are
    rows = cli("quarantine", "list", "--json").lines
    assert rows[0] == {
        "id": 1,
        "code": "not_json",
        "detail": "is no JSON",
        "size": 5,
        "received_at": "2026-03-01T09:00:00Z",
        "source": None,
        "command_id": None,
        "user_id": None,
        "erased_at": None,
    }
    assert len(rows) == 2
    # When they are shown, then whole
    text = cli("quarantine", "show", 1, "--json").json
    assert text == {
        **rows[0],
        "shard": 0,
        "headers": {"content-type": "text/plain", "x": "1"},
        "body": "café",
        "body_encoding": "utf-8",
    }
    binary = cli("quarantine", "show", 2, "--json").json
    assert (binary["body"], binary["body_encoding"], binary["size"]) == ("/wA=", "base64", 2)


def test_a_message_that_is_not_in_quarantine(cli: CommandLine, record: Record) -> None:
    for message_id in (1, 2**63 - 1):
        ran = cli("quarantine", "show", message_id, "--json")
        assert (ran.status, ran.out) == (1, "")
        assert ran.err.startswith("invigilator: no such message")


def test_migrating(cli: CommandLine, empty_database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a database without tables, which commands refuse
    monkeypatch.setenv("INVIGILATOR_DATABASE_URL", empty_database_url)
    before = cli("effects", "list")
    assert before.status == 1
    assert before.err == (
        "invigilator: the database does not have the schema of this release: run `invigilator migrate` "
        "(it has no schema, or one that is older than this release can use)\n"
    )
    # When it is migrated, twice
    ran = cli("migrate", "--json")
    assert (ran.status, ran.err) == (0, "")
    assert cli("migrate").out == f"revision: {ran.json['revision']}\n"
    # Then they work
    assert cli("effects", "list", "--json").status == 0


def test_a_database_of_a_newer_release(cli: CommandLine, record: Record) -> None:
    record.execute("UPDATE alembic_version SET version_num = '9999'")
    # A table that this release reads may be another one by then
    record.execute("ALTER TABLE effects RENAME COLUMN tries TO attempts")
    for arguments in (["migrate"], ["effects", "list"]):
        ran = cli(*arguments)
        assert ran.status == 1
        assert "was the database migrated by a newer release?" in ran.err
        assert "invigilator migrate" not in ran.err
        assert ran.err.count("\n") == 1


def test_a_standby_is_good_enough_to_read(cli: CommandLine, record: Record, database_url: str) -> None:
    # Given a database that is read-only to new sessions
    database = make_url(database_url).database
    record.execute(f'ALTER DATABASE "{database}" SET default_transaction_read_only = on')
    # Then it is read, and not written to
    assert cli("effects", "list", "--json").status == 0
    assert cli("commands", "list", "--json").status == 0
    for arguments in (
        ["migrate"],
        ["prune", "--older-than", "90d"],
        ["effects", "retry", "--state", "failed"],
    ):
        ran = cli(*arguments)
        assert (ran.status, ran.err.count("\n")) == (1, 1)
        assert "session is read-only" in ran.err


def test_odd_text_on_the_command_line(cli: CommandLine, record: Record) -> None:
    for odd in ("%s %(x)s", "'; DROP TABLE effects; --", "\udcff", "é" * 300):
        ran = cli("commands", "show", "--source", odd, "--id", odd)
        assert ran.status in (1, 2)
        assert ran.err.count("\n") == 1
        assert "unexpected" not in ran.err
