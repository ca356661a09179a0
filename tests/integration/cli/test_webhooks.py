"""`invigilator webhooks`, and what `status` says of the endpoints."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from db import deliveries, event_log, subscribers
from tests import sample_commands as c
from tests.commandline import CommandLine
from tests.fakes.receiver import SECRET, Receiver, always
from tests.integration.cli.conftest import Record
from worker.feeds.fanout import Fanout
from worker.subscriptions import load_subscriptions


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as server:
        yield server


@pytest.fixture(autouse=True)
def file(tmp_path: Path, receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file of subscriptions with one webhook."""
    path = tmp_path / "subscriptions.toml"
    path.write_text(f"[webhook.acme]\nurl = '{receiver.url}/s3cret?token=s3cret'\nsecrets = ['{SECRET}']\n")
    monkeypatch.setenv("INVIGILATOR_SUBSCRIPTIONS_FILE", str(path))
    return path


@pytest.fixture
def owed(record: Record, file: Path) -> None:
    """Two deliveries to the webhook."""
    subscriptions = load_subscriptions(file)
    with record.engine.begin() as connection:
        subscribers.store(connection, subscriptions.definitions())
    record.handle(c.received(c.create("A")), c.received(c.update("A", "started")))
    with record.engine.begin() as connection:
        event_log.number(connection)
    fanout = Fanout(record.engine, subscriptions.webhooks(), "/invigilator/main", 60)
    fanout.fan_out("webhook.acme", threading.Event())


def test_the_webhooks(cli: CommandLine, receiver: Receiver, owed: None) -> None:
    (row,) = cli("webhooks", "list", "--json").lines
    assert row == {
        "name": "acme",
        "url": receiver.url,
        "types": ["*"],
        "order": "none",
        "allow_private": False,
        "behind": 0,
        "pending": 2,
        "failed": 0,
        "off_since": None,
        "reason": None,
    }
    assert "s3cret" not in cli("webhooks", "list").out


def test_a_delivery_is_an_effect_that_a_person_can_look_at_and_cancel(cli: CommandLine, owed: None) -> None:
    rows = cli("effects", "list", "--kind", "deliver_event", "--json").lines
    assert [row["state"] for row in rows] == ["pending", "pending"]
    shown = cli("effects", "show", rows[0]["id"], "--json").json
    assert shown["payload"]["webhook"] == "acme"
    assert cli("effects", "cancel", *[row["id"] for row in rows]).status == 0
    assert cli("webhooks", "list", "--json").lines[0]["pending"] == 0


def test_off_and_on(
    cli: CommandLine, owed: None, valkey_url: str, monkeypatch: pytest.MonkeyPatch, record: Record
) -> None:
    monkeypatch.setenv("INVIGILATOR_BROKER_URL", valkey_url)
    assert cli("status", "--json").json["webhooks"] == {"acme": {"off_since": None, "reason": None}}
    assert cli("webhooks", "off", "acme", "--json").json == {"webhook": "acme", "on": False}
    document = cli("status", "--json").json
    off = document["webhooks"]["acme"]
    assert off["off_since"].endswith("Z")
    assert off["reason"] == "switched off by a person"
    assert document["feeds"] == {}
    # What happens meanwhile waits in the log, and is counted
    record.handle(c.received(c.update("A", "submitted")))
    assert cli("webhooks", "list", "--json").lines[0]["behind"] == 1
    assert cli("webhooks", "on", "acme", "--json").json == {"webhook": "acme", "on": True}
    with record.engine.begin() as connection:
        (endpoint,) = deliveries.endpoints(connection)
    assert (endpoint.off_since, endpoint.reason, endpoint.pending) == (None, None, 2)


@pytest.mark.parametrize("command", ["on", "off"])
def test_one_that_is_not_there(cli: CommandLine, owed: None, command: str) -> None:
    ran = cli("webhooks", command, "other")
    assert (ran.status, ran.out) == (1, "")
    assert ran.err == "invigilator: there is no webhook other; there are: acme\n"


def test_a_trial(cli: CommandLine, receiver: Receiver) -> None:
    ran = cli("webhooks", "test", "acme", "--json")
    (event,) = receiver.events
    assert (ran.status, ran.json) == (
        0,
        {"webhook": "acme", "event_id": event["id"], "taken": True, "reason": None},
    )
    assert (event["type"], event["data"]) == ("exam.webhook.test.v1", {"webhook": "acme"})


def test_a_trial_that_fails_says_what_came_back(cli: CommandLine, receiver: Receiver) -> None:
    receiver.answers = always(302, {"code": "moved"}, Location="http://169.254.169.254/")
    ran = cli("webhooks", "test", "acme", "--json")
    assert (ran.status, ran.json["taken"]) == (1, False)
    assert ran.json["reason"] == "webhook.acme answered 302 (moved)"
    assert len(receiver.requests) == 1


def test_a_trial_of_one_that_is_not_there(cli: CommandLine) -> None:
    ran = cli("webhooks", "test", "other")
    assert (ran.status, ran.err) == (1, "invigilator: SUBSCRIPTIONS_FILE has no [webhook.other]\n")
