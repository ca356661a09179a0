"""What people do on the command line: causes, filters, bulk acts, pauses, and the audit of all of them."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
import redis
from sqlalchemy import select, text

from db import acts as audit
from db import bulk, subscribers
from db.models import ActTarget, BulkAct
from invigilator.acts import effects as module
from invigilator.acts.actor import Actor, Via
from tests import sample_commands as c
from tests.commandline import CommandLine
from tests.integration.cli.conftest import Record
from worker.kinds import EffectKind

CREDIT = EffectKind.SET_CREDIT_STATUS
EVE = Actor("eve", is_claimed=False, via=Via.CONSOLE, origin="10.0.0.1")


@pytest.fixture
def failed(record: Record) -> list[UUID]:
    """Three learners' failed credits, oldest first: two of one cause, whose ids hold 403, one answered 403."""
    for user in ("403", "1403", "7"):
        record.handle(
            c.received(c.learner(user)),
            c.received(c.create("A", user)),
            c.received(c.update("A", "submitted", user)),
        )
    owed = list(record.effect_ids(CREDIT))
    causes = ("down", "down", "refused")
    errors = ("answered 500 of 403", "answered 500 of 1403", "answered 403")
    for effect_id, cause, error in zip(owed, causes, errors, strict=True):
        record.set_state(effect_id, "failed")
        record.execute(
            "UPDATE effects SET cause = :cause, last_error = :error, failed_at = now() WHERE id = :id",
            cause=cause,
            error=error,
            id=effect_id,
        )
    record.execute(
        "INSERT INTO causes VALUES ('refused', 'set_credit_status', 403, 'Refused', 'answered 403'),"
        " ('down', 'set_credit_status', 500, 'Down', 'answered 500 of #')"
    )
    return owed


def _audit(cli: CommandLine, *arguments: object) -> list[dict[str, Any]]:
    return list(cli("audit", "list", *arguments, "--json").lines)


def _verified(cli: CommandLine) -> Any:
    return cli("audit", "verify", "--json").json


# --- causes and filters ------------------------------------------------------------------------------------


def test_causes_tell_what_grep_cannot(cli: CommandLine, failed: list[UUID]) -> None:
    # When a person asks why effects fail
    down, refused = cli("effects", "causes", "--json").lines
    # Then the status is no matter of a number in an id
    assert (down["cause"], down["count"], down["state"]) == ("down", 2, "failed")
    assert (refused["status"], refused["count"], refused["reason"]) == (403, 1, "answered 403")
    assert refused["example"] == str(failed[2])
    # And the value leads to the effects
    assert [row["id"] for row in cli("effects", "list", "--cause", "refused", "--json").lines] == [
        str(failed[2])
    ]
    assert "answered 403" in cli("effects", "causes").out


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        (("--user", "403"), [0]),
        (("--user", "nobody"), []),
        (("--exam", "A", "--state", "failed"), [2, 1, 0]),
        (("--exam", "B"), []),
        (("--course", c.COURSE, "--state", "failed"), [2, 1, 0]),
        (("--course", "none"), []),
        (("--error", "403"), [2, 1, 0]),
        (("--error", "answered 403"), [2]),
        (("--error", "answered%"), []),
        (("--error", "403", "--state", "done"), []),
        (("--cause", "down", "--user", "1403"), [1]),
        (("--since", "1h", "--state", "failed"), [2, 1, 0]),
        (("--until", "1h"), []),
        (("--since", "2099-01-01T00:00:00Z"), []),
        (("--subscriber", "webhook.acme"), []),
        (("--state", "failed", "--state", "pending", "--kind", "set_credit_status"), [2, 1, 0]),
    ],
)
def test_filters(cli: CommandLine, failed: list[UUID], arguments: tuple[str, ...], found: list[int]) -> None:
    rows = cli("effects", "list", *arguments, "--json").lines
    assert [row["id"] for row in rows] == [str(failed[number]) for number in found]


def test_by_attempt_and_page_by_page(cli: CommandLine, failed: list[UUID]) -> None:
    [first] = cli("effects", "list", "--user", "403", "--json").lines
    [again] = cli("effects", "list", "--attempt", first["attempt_code"], "--json").lines
    assert again["id"] == first["id"]
    # When a page begins after an effect
    rows = cli("effects", "list", "--state", "failed", "--limit", "1", "--after", failed[2], "--json").lines
    assert [row["id"] for row in rows] == [str(failed[1])]
    # And after one that is not there
    ran = cli("effects", "list", "--after", "0198c0de-0000-7000-8000-000000000000")
    assert (ran.status, "there is no effect" in ran.err) == (1, True)


@pytest.mark.parametrize(
    ("option", "told"),
    [
        (("--cause", "refusd"), "there is no cause refusd; `invigilator effects causes`"),
        (("--kind", "mail"), "must be one of set_credit_status"),
        (("--state", "lost"), "must be one of pending"),
    ],
)
def test_a_filter_that_names_what_is_not_there_is_refused(
    cli: CommandLine, failed: list[UUID], option: tuple[str, str], told: str
) -> None:
    for command in (
        ("list",),
        ("retry", "--reason", "x"),
        ("retry", "--dry-run"),
        ("cancel", "--reason", "x"),
    ):
        ran = cli("effects", *command, *option)
        assert (ran.status, ran.out, ran.err.count("\n")) == (2, "", 1)
        assert told in ran.err
        assert option[0] in ran.err
    assert _audit(cli) == []


# --- acts in bulk ------------------------------------------------------------------------------------------


def test_old_mails_are_warned_of_before_they_go_after_newer_ones(
    cli: CommandLine, record: Record, failed: list[UUID], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a learner's mail that has failed, and one of another learner
    for user in ("403", "1403"):
        record.handle(
            c.received(c.create("B", user, taking_as_proctored=True)),
            c.received(c.update("B", "submitted", user)),
        )
    for one in record.effect_ids(EffectKind.SEND_STATUS_EMAIL):
        record.set_state(one, "failed")
    retry = ("effects", "retry", "--kind", "send_status_email")
    assert cli(*retry, "--dry-run", "--json").err == ""
    # And a newer one about the same attempt as the first, which has gone
    record.handle(c.received(c.update("B", "verified", "403")))
    newer = record.effect_ids(EffectKind.SEND_STATUS_EMAIL)[-1]
    record.set_state(newer, "done")
    # When a person looks before
    ran = cli(*retry, "--dry-run", "--json")
    # Then they are told
    assert ran.json == {"would_retry": 2}
    assert "1 of them would come too late" in ran.err
    # And asked on a terminal, knowing it
    monkeypatch.setattr("invigilator.cli.effects._is_terminal", lambda: True)
    assert "1 of them would come too late" in cli(*retry, stdin=b"n\n").err
    # And nothing is said of cancelling
    cancelling = cli("effects", "cancel", "--kind", "send_status_email", "--dry-run", "--json")
    assert (cancelling.err, cancelling.json) == ("", {"would_cancel": 2})


def test_a_bulk_act_is_counted_first_and_leaves_a_row_for_each_step(
    cli: CommandLine, record: Record, failed: list[UUID], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "STEP_EFFECTS", 1)
    # Given a count, which changes nothing
    counted = cli("effects", "retry", "--cause", "down", "--dry-run", "--json")
    assert (counted.err, counted.json) == ("", {"would_retry": 2})
    head, _, *rows = cli("effects", "cancel", "--error", "403", "--dry-run").out.splitlines()
    assert head == "would cancel: 3"
    assert [row.split()[:3] for row in rows] == [["2", CREDIT, "down"], ["1", CREDIT, "refused"]]
    assert _audit(cli) == []
    # When a person retries those of one cause
    ran = cli("effects", "retry", "--cause", "down", "--reason", "it is back", "--json")
    # Then these are pending, and each step is a row, with one that closes
    assert (ran.status, ran.json, ran.err) == (0, {"retried": 2, "refused": []}, "")
    # And the log has a line for each step
    assert [(line["event"], line["action"], line["via"], line["count"]) for line in ran.log] == [
        ("a person acted", "retry", "command line", 1),
        ("a person acted", "retry", "command line", 1),
        ("a person acted", "retry", "command line", 2),
    ]
    assert [record.effect(one).state for one in failed] == ["pending", "pending", "failed"]
    closing, second, first = _audit(cli)
    assert {row["act_id"] for row in (closing, second, first)} == {first["act_id"]}
    assert [row["step"] for row in (first, second, closing)] == [1, 2, 3]
    assert [row["closing"] for row in (first, second, closing)] == [False, False, True]
    assert (closing["number"], closing["details"]) == (2, {"expected": 2, "refused": 0, "state": "finished"})
    assert first["filter"] == {"states": ["failed"], "cause": "down"}
    assert (first["action"], first["reason"], first["via"]) == ("retry", "it is back", "command line")
    # And which effects, from where to where
    with record.engine.connect() as connection:
        targets = connection.execute(select(ActTarget.effect_id, ActTarget.before, ActTarget.after)).all()
    assert sorted(map(tuple, targets)) == sorted((one, "failed", "pending") for one in failed[:2])
    assert [row["step"] for row in _audit(cli, "--effect", failed[0])] == [1]
    assert [row["step"] for row in _audit(cli, "--act", first["act_id"])] == [3, 2, 1]
    # And the chain holds
    assert _verified(cli)["holds"]


def test_named_effects_are_one_act(
    cli: CommandLine, record: Record, failed: list[UUID], monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = cli("effects", "cancel", failed[0], failed[1], "--reason", "test data", "--json")
    assert ran.json == {"cancelled": 2, "refused": []}
    [row] = _audit(cli)
    assert (row["action"], row["number"], row["closing"]) == ("cancel", 2, True)
    assert row["filter"] == {"effects": [str(failed[0]), str(failed[1])]}
    # When nothing is changed, then nothing is told
    assert cli("effects", "retry", "0198c0de-0000-7000-8000-000000000000").status == 1
    assert len(_audit(cli)) == 1
    # And an act of several steps closes, although its last one is refused
    monkeypatch.setattr(module, "STEP_EFFECTS", 1)
    record.set_state(failed[2], "done")
    assert cli("effects", "retry", *failed).status == 1
    assert [(row["step"], row["number"], row["closing"]) for row in _audit(cli)[:3]] == [
        (3, 0, True),
        (2, 1, False),
        (1, 1, False),
    ]


@pytest.mark.parametrize(("answer", "state"), [("y\n", "pending"), ("n\n", "failed")])
def test_somebody_at_a_terminal_is_asked(
    cli: CommandLine,
    record: Record,
    failed: list[UUID],
    monkeypatch: pytest.MonkeyPatch,
    answer: str,
    state: str,
) -> None:
    monkeypatch.setattr("invigilator.cli.effects._is_terminal", lambda: True)
    ran = cli("effects", "retry", "--cause", "down", stdin=answer.encode())
    assert "retry 2 effects?" in ran.err
    assert ran.status == (0 if state == "pending" else 1)
    assert record.effect(failed[0]).state == state
    # And not with --yes
    assert "?" not in cli("effects", "retry", "--state", "failed", "--yes").err
    assert record.effect(failed[2]).state == "pending"


def _newest(record: Record) -> UUID:
    with record.engine.connect() as connection:
        return connection.scalars(select(BulkAct.id).order_by(BulkAct.started_at.desc())).one()


def test_ctrl_c_ends_it_between_two_steps(
    cli: CommandLine, record: Record, failed: list[UUID], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "STEP_EFFECTS", 1)
    step = module.BulkAct.step

    def interrupted(act: module.BulkAct) -> bulk.Progress:
        if act.progress.done:
            raise KeyboardInterrupt
        return step(act)

    monkeypatch.setattr(module.BulkAct, "step", interrupted)
    # When a person stops it after the first step
    ran = cli("effects", "retry", "--state", "failed")
    # Then that much is done, and said
    assert (ran.status, ran.out) == (130, "")
    assert "stopped: 1 of 3 are retried" in ran.err
    closing, first = _audit(cli)
    assert (first["number"], closing["closing"], closing["details"]["state"]) == (1, True, "stopped")
    # And the same command goes on with the rest
    monkeypatch.setattr(module.BulkAct, "step", step)
    assert cli("effects", "retry", "--state", "failed", "--json").json["retried"] == 2


def test_anybody_may_stop_it(
    cli: CommandLine, record: Record, failed: list[UUID], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "STEP_EFFECTS", 1)
    step = module.BulkAct.step

    def stopped(act: module.BulkAct) -> bulk.Progress:
        progress = step(act)
        with record.engine.begin() as connection:
            module.stop(connection, EVE, act.progress.id)
        return progress

    monkeypatch.setattr(module.BulkAct, "step", stopped)
    ran = cli("effects", "cancel", "--state", "failed")
    assert ran.status == 130
    with record.engine.begin() as connection:
        found = bulk.read(connection, _newest(record))
        assert found is not None
        assert (found.state, found.done, found.expected) == ("stopped", 1, 3)
        assert not module.stop(connection, EVE, found.id)
        assert [one.id for one in bulk.newest(connection, 5)] == [found.id]
    # And who has stopped it is told among its own rows
    closing, stop, _ = _audit(cli, "--act", str(found.id))
    assert (stop["action"], stop["actor"], stop["number"], stop["closing"]) == ("stop", "eve", 0, False)
    assert (closing["action"], closing["closing"]) == ("cancel", True)


def test_a_step_that_fails_leaves_nothing_and_ends_the_act(
    cli: CommandLine, record: Record, failed: list[UUID], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given somebody who holds the second effect's row
    monkeypatch.setattr(module, "STEP_EFFECTS", 1)
    monkeypatch.setattr("invigilator.acts.transactions.LOCK_TIMEOUT", "50ms")
    with record.engine.begin() as connection:
        connection.execute(text("SELECT FROM effects WHERE id = :id FOR UPDATE"), {"id": failed[1]})
        ran = cli("effects", "retry", "--state", "failed")
    # Then the first one is retried, and the act has failed
    assert (ran.status, "try again" in ran.err) == (1, True)
    closing, first = _audit(cli)
    assert [(row["step"], row["number"]) for row in (first, closing)] == [(1, 1), (2, 1)]
    assert closing["details"]["state"] == "failed"


def test_more_refusals_than_are_kept(
    cli: CommandLine, record: Record, failed: list[UUID], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given effects that newer ones have overtaken
    monkeypatch.setattr(module, "KEPT_REFUSALS", 1)
    for user in ("403", "1403"):
        record.handle(c.received(c.update("A", "verified", user)))
    ran = cli("effects", "retry", "--cause", "down", "--json")
    assert (ran.status, ran.json["retried"], len(ran.json["refused"])) == (1, 0, 1)
    assert "2 were refused; these are the first 1" in ran.err
    # And no step has changed anything, so only the end is told
    assert [row["closing"] for row in _audit(cli)] == [True]


# --- pauses ------------------------------------------------------------------------------------------------


def test_pausing_and_resuming(cli: CommandLine, record: Record, failed: list[UUID]) -> None:
    record.set_state(failed[0], "pending")
    # When a kind is paused
    ran = cli("pause", CREDIT, "--until", "2h", "--reason", "the registrar asked", "--json")
    assert (ran.status, ran.json["paused"], ran.json["reason"]) == (0, True, "the registrar asked")
    ends_at = datetime.fromisoformat(ran.json["ends_at"])
    assert timedelta(hours=1) < ends_at - datetime.now(UTC) < timedelta(hours=3)
    # Then effects that are owed say so
    listed = {row["id"]: row["paused"] for row in cli("effects", "list", "--json").lines}
    assert str(listed[str(failed[0])]).endswith(": the registrar asked")
    assert listed[str(failed[1])] is None
    assert str(cli("effects", "show", failed[0], "--json").json["paused"]).startswith("paused until ")
    # And it is resumed once
    assert cli("resume", CREDIT, "--reason", "done", "--json").json["paused"] is False
    assert cli("resume", CREDIT).err == f"invigilator: {CREDIT} is not paused; paused kinds: none\n"
    # And both are told, with what there was before and after
    resumed, paused = _audit(cli)
    assert (paused["action"], paused["filter"]) == ("pause", {"kinds": ["set_credit_status"]})
    assert (paused["details"]["before"], paused["reason"]) == (None, "the registrar asked")
    assert paused["details"]["after"]["reason"] is None  # nothing could ever be erased there
    assert (resumed["action"], resumed["details"]["after"], resumed["reason"]) == ("resume", None, "done")


def test_a_pause_that_is_over_before_it_begins(cli: CommandLine, record: Record) -> None:
    ran = cli("pause", CREDIT, "--until", "2020-01-01T00:00:00Z")
    assert (ran.status, "has passed" in ran.err) == (1, True)
    assert _audit(cli) == []


# --- who, and what else ------------------------------------------------------------------------------------


def test_who_acts(cli: CommandLine, failed: list[UUID], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("getpass.getuser", lambda: "ada")
    monkeypatch.setattr("socket.gethostname", lambda: "desk")
    cli("effects", "retry", failed[0])
    # Given a name that somebody claims
    monkeypatch.setenv("INVIGILATOR_ACTOR", "Grace")
    cli("effects", "retry", failed[1])
    claimed, known = _audit(cli)
    assert (known["actor"], known["is_claimed"], known["origin"]) == ("ada@desk", False, "ada@desk")
    assert (claimed["actor"], claimed["is_claimed"], claimed["origin"]) == ("Grace", True, "ada@desk")


def test_an_account_without_a_name(
    cli: CommandLine, failed: list[UUID], monkeypatch: pytest.MonkeyPatch
) -> None:
    def nameless() -> str:
        raise KeyError("uid 1000")

    monkeypatch.setattr("getpass.getuser", nameless)
    cli("effects", "retry", failed[0])
    assert _audit(cli)[0]["actor"].startswith("unknown@")


def test_webhooks_and_events(cli: CommandLine, record: Record) -> None:
    with record.engine.begin() as connection:
        subscribers.store(connection, {"webhook.acme": {"url": "https://acme.example"}, "feed.lms": {}})
    assert cli("webhooks", "off", "acme", "--reason", "they move").status == 0
    assert cli("webhooks", "list", "--json").lines[0]["reason"] == "they move"
    assert cli("webhooks", "on", "acme").status == 0
    assert cli("webhooks", "on", "none").status == 1
    assert cli("events", "replay", "--to", "feed.lms", "--after", "0", "--reason", "restored").status == 0
    assert cli("events", "replay", "--to", "feed.none", "--after", "0").status == 1
    replayed, on, off = _audit(cli)
    assert (off["action"], off["filter"], off["reason"]) == (
        "webhook off",
        {"webhooks": ["acme"]},
        "they move",
    )
    assert (on["action"], on["details"]["before"].keys()) == ("webhook on", {"off_since"})
    assert (replayed["action"], replayed["filter"]) == (
        "replay events",
        {"subscriber": "feed.lms", "after": 0},
    )
    assert _verified(cli)["rows"] == 3


def test_the_quarantine(
    cli: CommandLine, record: Record, valkey_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INVIGILATOR_BROKER_URL", valkey_url)
    record.quarantine(b"one", source="/lms", command_id="a-1")
    record.quarantine(b"two")
    assert cli("quarantine", "replay", "1", "--reason", "the release is mended").status == 0
    assert cli("quarantine", "discard", "2", "3", "--reason", "junk").status == 1
    assert cli("quarantine", "discard", "3").status == 1
    discarded, replayed = _audit(cli)
    assert (replayed["action"], replayed["filter"]) == ("replay", {"messages": [1]})
    assert replayed["details"]["before"] == [
        {"id": 1, "code": "not_json", "source": "/lms", "command_id": "a-1", "user_id": None}
    ]
    assert (discarded["action"], discarded["number"], discarded["reason"]) == ("discard", 1, "junk")
    with redis.Redis.from_url(valkey_url) as client:
        assert client.llen("invigilator.commands.0") == 1


def test_verifying_a_chain_that_was_changed(cli: CommandLine, record: Record, failed: list[UUID]) -> None:
    cli("effects", "retry", failed[0])
    cli("effects", "retry", failed[1])
    newest = _verified(cli)["newest"]
    assert newest.startswith("2:")
    assert cli("audit", "verify", "--kept", newest).status == 0
    # When the end is cut off
    with record.engine.begin() as connection:
        connection.execute(text("SET LOCAL session_replication_role = replica"))
        connection.execute(text("DELETE FROM acts WHERE sequence = 2"))
    # Then only a row that was kept shows it
    assert cli("audit", "verify").status == 0
    ran = cli("audit", "verify", "--kept", newest, "--json")
    assert (ran.status, ran.json["holds"], ran.json["first_wrong"]) == (1, False, 2)
    assert ran.json["problem"] == "is missing: the end was cut off"


def test_an_act_and_its_change_are_one_transaction(
    cli: CommandLine, record: Record, failed: list[UUID], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given an audit that cannot be written
    def full(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(audit, "append", full)
    for arguments in (
        ("effects", "retry", failed[0]),
        ("pause", CREDIT),
        ("effects", "cancel", "--cause", "down"),
    ):
        assert cli(*arguments).status == 1
    # Then nothing has changed
    assert {record.effect(one).state for one in failed} == {"failed"}
    with record.engine.begin() as connection:
        assert connection.scalar(text("SELECT count(*) FROM pauses")) == 0
