"""The outbox: what commits is published, once and in order; what is rolled back is not; no request waits."""

import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.core.management import CommandError, call_command
from django.db import DatabaseError, connections, transaction

from events.django import publish
from events.envelope import parse
from events.errors import InvalidMessageError, InvigilatorError
from tests.integration.django.conftest import Broker
from tests.integration.django.patience import PATIENCE_S, wait_until
from tests.unit.events.messages import TRACE

SUBMITTED: dict[str, Any] = {"exam_id": "7", "user_id": "42", "to_status": "submitted"}
AWAY = "redis://127.0.0.1:1"
UPDATE = "exam.attempt.update-status.v1"
KILLED = """
import os, signal, sys
import django
from django.conf import settings
settings.configure(
    INSTALLED_APPS=["events.django"],
    USE_TZ=True,
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": sys.argv[1]}},
    INVIGILATOR={"BROKER_URL": "memory://", "SOURCE": "/lms/acme"},
)
django.setup()
from django.db import transaction
from events.django import courier, publish
courier.Courier.wake = lambda self: os.kill(os.getpid(), signal.SIGKILL)
with transaction.atomic():
    publish("exam.attempt.update-status.v1", command_id="killed", exam_id="7", user_id="42", to_status="started")
"""


def publish_update(command_id: str, database: str) -> None:
    publish(UPDATE, command_id=command_id, using=database, **SUBMITTED)


def waiting(database: str) -> int:
    from events.django.models import OutboxCommand

    return int(OutboxCommand.objects.using(database).count())


@pytest.fixture
def asleep(monkeypatch: pytest.MonkeyPatch, database: str) -> str:
    """A database whose commits wake no courier."""
    from events.django.courier import Courier

    monkeypatch.setattr(Courier, "wake", lambda self: None)
    return database


def test_a_commit_publishes(database: str, broker: Broker) -> None:
    with transaction.atomic(using=database):
        publish_update("a", database)
        assert waiting(database) == 1
        assert broker.taken() == []
    wait_until(lambda: not waiting(database))
    assert broker.taken() == ["a"]


def test_a_rollback_publishes_nothing(database: str, broker: Broker) -> None:
    with transaction.atomic(using=database):
        publish_update("a", database)
        transaction.set_rollback(True, using=database)
    call_command("publish_commands", once=True, database=database)
    assert broker.taken() == []


def test_without_a_transaction_it_is_committed_at_once(database: str, broker: Broker) -> None:
    publish_update("a", database)
    wait_until(lambda: not waiting(database))
    assert broker.taken() == ["a"]


def test_a_trace_waits_with_its_command(asleep: str) -> None:
    from events.django.models import OutboxCommand

    publish(UPDATE, using=asleep, traceparent=TRACE, **SUBMITTED)
    [waits] = OutboxCommand.objects.using(asleep).all()
    assert parse(bytes(waits.body)).traceparent == TRACE


def test_the_database_is_the_one_that_django_routes_to(invigilator: dict[str, Any], broker: Broker) -> None:
    command_id = publish(UPDATE, **SUBMITTED)
    wait_until(lambda: not waiting("default"))
    assert broker.taken() == [command_id]


def test_once_publishes_in_the_order_in_which_commands_were_written(
    asleep: str, broker: Broker, capsys: pytest.CaptureFixture[str]
) -> None:
    ids = [str(number) for number in range(250)]
    with transaction.atomic(using=asleep):
        for command_id in ids:
            publish_update(command_id, asleep)
    call_command("publish_commands", once=True, database=asleep)
    assert capsys.readouterr().out == "published: 250\n"
    assert broker.taken() == ids
    assert waiting(asleep) == 0


@pytest.mark.parametrize(
    ("name", "data", "problem"),
    [
        ("exam.attempt.finish.v1", SUBMITTED, "unknown_type"),
        (UPDATE, {"exam_id": "7"}, "user_id: is missing"),
        (UPDATE, {**SUBMITTED, "colour": "red"}, "colour: is not a known field"),
    ],
)
def test_a_wrong_command_is_refused_at_once(
    database: str, name: str, data: dict[str, Any], problem: str
) -> None:
    with pytest.raises(InvalidMessageError, match=problem):
        publish(name, using=database, **data)
    assert waiting(database) == 0


def test_a_broker_that_is_away_slows_no_request_and_loses_nothing(
    database: str, invigilator: dict[str, Any], broker: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    # Given a broker that is away
    invigilator["BROKER_URL"] = AWAY
    with transaction.atomic(using=database):
        publish_update("a", database)
    publish_update("b", database)
    # When a person tries
    with pytest.raises(CommandError, match="the broker did not take the message"):
        call_command("publish_commands", once=True, database=database)
    assert waiting(database) == 2
    # Then the log says so, once, and all are published when it is back
    wait_until(lambda: "commands wait in the outbox" in caplog.text)
    invigilator["BROKER_URL"] = Broker.URL
    publish_update("c", database)
    wait_until(lambda: not waiting(database))
    assert broker.taken() == ["a", "b", "c"]


def test_the_thread_warns_once_until_it_succeeds(
    database: str, invigilator: dict[str, Any], broker: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    from events.django.courier import Courier

    courier = Courier(database)
    for url, warnings in ((AWAY, 1), (AWAY, 1), (Broker.URL, 1), (AWAY, 2)):
        invigilator["BROKER_URL"] = url
        insert("a", database)
        courier.wake()
        wait_until(lambda: not courier.is_running)
        assert caplog.text.count("commands wait in the outbox") == warnings


def insert(command_id: str, database: str) -> None:
    """Write a command as another process would, which wakes no courier of ours."""
    from events.commands import Command, model_of, read_data
    from events.django.models import OutboxCommand
    from events.envelope import render

    command = Command("/lms/acme", command_id, read_data(model_of(UPDATE), SUBMITTED))
    OutboxCommand.objects.using(database).create(body=render(command))


def test_a_failure_halfway_keeps_what_was_not_published(
    asleep: str, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    from events.django import sending
    from events.publisher import Publisher

    ids = ["a", "b", "c"]
    for command_id in ids:
        insert(command_id, asleep)
    really = Publisher.publish
    refused = iter([False, True])

    def publish_some(self: Publisher, command: Any) -> None:
        if next(refused, False):
            raise InvigilatorError
        really(self, command)

    monkeypatch.setattr(Publisher, "publish", publish_some)
    with pytest.raises(InvigilatorError):
        sending.send_pending(asleep)
    assert waiting(asleep) == 2
    sending.send_pending(asleep)
    assert broker.taken() == ids


def test_two_senders_do_not_double(invigilator: dict[str, Any], broker: Broker) -> None:
    # Given a sender that holds the lock
    from events.django.models import SenderLock
    from events.django.sending import send_pending

    insert("a", "postgresql")
    locks = SenderLock.objects.using("postgresql")
    locks.get_or_create(pk=SenderLock.ROW)
    counts: list[int] = []

    def send_too() -> None:
        counts.append(send_pending("postgresql"))
        close("postgresql")

    with transaction.atomic(using="postgresql"):
        locks.select_for_update().get()
        # When another one tries, it finds nothing to do, and does not wait
        other = threading.Thread(target=send_too)
        other.start()
        other.join(PATIENCE_S)
        assert counts == [0]
    # Then the command is there for the first one
    assert send_pending("postgresql") == 1
    assert broker.taken() == ["a"]


def test_many_senders_keep_the_order_and_double_nothing(invigilator: dict[str, Any], broker: Broker) -> None:
    from events.django.sending import send_until

    stopped = threading.Event()

    def send() -> None:
        send_until(stopped, "postgresql")
        close("postgresql")

    senders = [threading.Thread(target=send) for _ in range(4)]
    for sender in senders:
        sender.start()
    ids = [str(number) for number in range(300)]
    for command_id in ids:
        insert(command_id, "postgresql")
    wait_until(lambda: not waiting("postgresql"))
    stopped.set()
    for sender in senders:
        sender.join(PATIENCE_S)
    assert broker.taken() == ids


def close(database: str) -> None:
    connections[database].close()


def test_a_process_that_is_killed_after_the_commit_loses_nothing(
    invigilator: dict[str, Any], sqlite_file: Path, broker: Broker
) -> None:
    run = subprocess.run(
        [sys.executable, "-c", KILLED, str(sqlite_file)], capture_output=True, check=False, timeout=PATIENCE_S
    )
    assert run.returncode == -signal.SIGKILL, run.stderr
    call_command("publish_commands", once=True)
    assert broker.taken() == ["killed"]


def test_it_goes_on_until_sigterm(
    asleep: str, broker: Broker, monkeypatch: pytest.MonkeyPatch, signals: None
) -> None:
    insert("a", asleep)

    def stop_when_sent() -> None:
        wait_until(lambda: not waiting(asleep))
        close(asleep)
        os.kill(os.getpid(), signal.SIGTERM)

    killer = threading.Thread(target=stop_when_sent)
    killer.start()
    call_command("publish_commands", database=asleep)
    killer.join(PATIENCE_S)
    assert broker.taken() == ["a"]


@pytest.fixture
def signals() -> Iterator[None]:
    """The handlers of signals are put back."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(
    ("error", "told"),
    [(InvigilatorError("the broker is away"), "the broker is away"), (DatabaseError("Ada"), "DatabaseError")],
)
def test_it_goes_on_when_something_is_away(
    asleep: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    error: Exception,
    told: str,
) -> None:
    from events.django import sending

    stopped = threading.Event()
    results: Iterator[Exception | int] = iter([error, 1, 0])

    def send(_using: str) -> int:
        result = next(results)
        if isinstance(result, Exception):
            raise result
        if not result:
            stopped.set()
        return result

    monkeypatch.setattr(sending, "_send_batch", send)
    monkeypatch.setattr(sending, "PAUSE_AFTER_FAILURE_S", 0)
    with caplog.at_level(logging.WARNING):
        sending.send_until(stopped, asleep)
    assert caplog.messages == [f"commands wait in the outbox: {told}"]
    assert list(results) == []


@pytest.mark.parametrize(
    ("setting", "problem"),
    [
        ({}, "set BROKER_URL and SOURCE in INVIGILATOR"),
        ({"BROKER_URL": "memory://"}, "set SOURCE in INVIGILATOR"),
        (
            {"BROKER_URL": "memory://", "SOURCE": "/lms", "SHARD": 1},
            "has an unknown key SHARD; known are BROKER_URL",
        ),
    ],
)
def test_a_wrong_setting_is_said(invigilator: dict[str, Any], setting: dict[str, Any], problem: str) -> None:
    from events.django.config import read_config

    invigilator.clear()
    invigilator.update(setting)
    with pytest.raises(ImproperlyConfigured, match=problem):
        read_config()


def test_a_wrong_value_is_said_without_quoting_it(invigilator: dict[str, Any]) -> None:
    from events.django.config import publisher_of, read_config

    invigilator["BROKER_URL"] = "http://secret"
    with pytest.raises(
        ImproperlyConfigured, match=r"^INVIGILATOR: broker_url must start with redis://"
    ) as raised:
        publisher_of(read_config())
    assert "secret" not in str(raised.value)


def test_the_migration_is_that_of_the_models(invigilator: dict[str, Any]) -> None:
    call_command("makemigrations", "invigilator_client", check=True, dry_run=True, verbosity=0)
    from events.django.models import OutboxCommand, SenderLock

    assert (str(OutboxCommand(pk=1)), str(SenderLock(pk=1))) == ("command 1", "the lock of the senders")
