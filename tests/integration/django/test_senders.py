"""Those who send what is in the outbox: everything, in order, and what is sent twice has the same id."""

import json
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
from django.conf import settings
from django.core.management import call_command
from django.db import DatabaseError, transaction

from events.errors import InvigilatorError
from tests.integration.django.conftest import SEVERAL_SENDERS, Broker
from tests.integration.django.killed import AFTER_COMMIT, AFTER_PUBLISH
from tests.integration.django.outbox import close, insert, publish_update, waiting
from tests.integration.django.patience import PATIENCE_S, wait_until

ROOT = Path(__file__).parents[3]
LEARNERS = ("41", "42", "43")
SENDERS = 4


def test_once_publishes_in_the_order_in_which_commands_were_written(
    asleep: str, broker: Broker, capsys: pytest.CaptureFixture[str]
) -> None:
    ids = [str(number) for number in range(250)]
    with transaction.atomic(using=asleep):
        for command_id in ids:
            publish_update(command_id, asleep)
    call_command("publish_commands", once=True, database=asleep)
    assert capsys.readouterr().out == "published: 250\n"
    assert broker.taken_ids() == ids
    assert waiting(asleep) == 0


def test_a_failure_halfway_keeps_what_was_not_published(
    asleep: str, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    from events.django.sending import send_pending
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
        send_pending(asleep)
    assert waiting(asleep) == 2
    send_pending(asleep)
    assert broker.taken_ids() == ids


# --- killed -------------------------------------------------------------------------------------------------


def run_until_killed(database: str, broker: Broker, moment: str) -> None:
    """Let another process write or send, until it is killed."""
    setting = {"BROKER_URL": broker.url, "SOURCE": "/lms/acme"}
    told = [json.dumps(one) for one in (settings.DATABASES[database], setting, "killed")]
    run = subprocess.run(
        [sys.executable, "-m", "tests.integration.django.killed", *told, moment],
        cwd=ROOT,
        capture_output=True,
        check=False,
        timeout=PATIENCE_S,
    )
    assert run.returncode == -signal.SIGKILL, run.stderr


def send_everything(database: str) -> None:
    """Send until nothing is left. A server needs a moment to notice that a sender with the lock has died."""

    def is_empty() -> bool:
        call_command("publish_commands", once=True, database=database)
        return not waiting(database)

    wait_until(is_empty)


def test_a_process_that_is_killed_after_the_commit_loses_nothing(
    database: str, shared_broker: Broker
) -> None:
    run_until_killed(database, shared_broker, AFTER_COMMIT)
    assert shared_broker.taken() == []
    send_everything(database)
    assert shared_broker.taken_ids() == ["killed"]


def test_a_sender_that_is_killed_before_the_removal_doubles_with_the_same_ids(
    asleep: str, shared_broker: Broker
) -> None:
    # Given a sender that was killed when it had published two of three commands
    for command_id in ("a", "b", "c"):
        insert(command_id, asleep)
    run_until_killed(asleep, shared_broker, AFTER_PUBLISH)
    first = shared_broker.taken()
    assert [command.id for command in first] == ["a", "b"]
    # When another one goes on
    send_everything(asleep)
    # Then it publishes them again, as they were, and those behind them
    again = shared_broker.taken()
    assert again[:2] == first
    assert [command.id for command in again] == ["a", "b", "c"]


# --- several senders ----------------------------------------------------------------------------------------

several_senders = pytest.mark.parametrize("database", SEVERAL_SENDERS, indirect=True)


@several_senders
def test_two_senders_do_not_double(asleep: str, broker: Broker) -> None:
    # Given a sender that holds the lock
    from events.django.models import SenderLock
    from events.django.sending import send_pending

    insert("a", asleep)
    locks = SenderLock.objects.using(asleep)
    locks.get_or_create(pk=SenderLock.ROW)
    counts: list[int] = []

    def send_too() -> None:
        counts.append(send_pending(asleep))
        close(asleep)

    with transaction.atomic(using=asleep):
        locks.select_for_update().get()
        # When another one tries, it finds nothing to do, and does not wait
        other = threading.Thread(target=send_too)
        other.start()
        other.join(PATIENCE_S)
        assert counts == [0]
    # Then the command is there for the first one
    assert send_pending(asleep) == 1
    assert broker.taken_ids() == ["a"]


@several_senders
def test_many_senders_keep_each_learners_order_and_double_nothing(asleep: str, broker: Broker) -> None:
    from events.django.sending import send_until

    # Given senders at work
    stopped = threading.Event()
    expected = {user_id: [f"{user_id}-{number}" for number in range(100)] for user_id in LEARNERS}

    def send() -> None:
        send_until(stopped, asleep)
        close(asleep)

    def write(user_id: str) -> None:
        for command_id in expected[user_id]:
            insert(command_id, asleep, user_id)
        close(asleep)

    senders = [threading.Thread(target=send) for _ in range(SENDERS)]
    writers = [threading.Thread(target=write, args=[user_id]) for user_id in LEARNERS]
    for thread in (*senders, *writers):
        thread.start()
    # When everything that several requests write at the same time was sent
    for writer in writers:
        writer.join(PATIENCE_S)
    wait_until(lambda: not waiting(asleep))
    stopped.set()
    for sender in senders:
        sender.join(PATIENCE_S)
    # Then each learner's commands came once, in their order
    came = broker.taken_ids()
    assert {user_id: [one for one in came if one.startswith(user_id)] for user_id in LEARNERS} == expected
    assert len(came) == sum(map(len, expected.values()))


# --- `publish_commands` without end -------------------------------------------------------------------------


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
    assert broker.taken_ids() == ["a"]


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
