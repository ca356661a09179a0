"""The outbox: what commits is published; what is rolled back is not; no request waits."""

from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.core.management import CommandError, call_command
from django.db import transaction

from events.django import publish
from events.envelope import parse
from events.errors import InvalidMessageError
from tests.integration.django.conftest import Broker
from tests.integration.django.outbox import AWAY, SUBMITTED, UPDATE, insert, publish_update, waiting
from tests.integration.django.patience import wait_until
from tests.peers import peer, say_nothing
from tests.unit.events.messages import TRACE


def test_a_commit_publishes(database: str, broker: Broker) -> None:
    with transaction.atomic(using=database):
        publish_update("a", database)
        assert waiting(database) == 1
        assert broker.taken_ids() == []
    wait_until(lambda: not waiting(database))
    assert broker.taken_ids() == ["a"]


def test_a_rollback_publishes_nothing(database: str, broker: Broker) -> None:
    with transaction.atomic(using=database):
        publish_update("a", database)
        transaction.set_rollback(True, using=database)
    call_command("publish_commands", once=True, database=database)
    assert broker.taken_ids() == []


def test_without_a_transaction_it_is_committed_at_once(database: str, broker: Broker) -> None:
    publish_update("a", database)
    wait_until(lambda: not waiting(database))
    assert broker.taken_ids() == ["a"]


def test_a_trace_waits_with_its_command(asleep: str) -> None:
    from events.django.models import OutboxCommand

    publish(UPDATE, using=asleep, traceparent=TRACE, **SUBMITTED)
    [waits] = OutboxCommand.objects.using(asleep).all()
    assert parse(bytes(waits.body)).traceparent == TRACE


def test_the_database_is_the_one_that_django_routes_to(invigilator: dict[str, Any], broker: Broker) -> None:
    command_id = publish(UPDATE, **SUBMITTED)
    wait_until(lambda: not waiting("default"))
    assert broker.taken_ids() == [command_id]


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
    from events.django.courier import courier_of

    # Given a broker that is away
    invigilator["BROKER_URL"] = AWAY
    with transaction.atomic(using=database):
        publish_update("a", database)
    publish_update("b", database)
    # Then the log says so, once
    wait_until(lambda: "commands wait in the outbox" in caplog.text)
    wait_until(lambda: not courier_of(database).is_running)
    # When a person tries, then the error says so
    with pytest.raises(CommandError, match="the broker did not take the message"):
        call_command("publish_commands", once=True, database=database)
    assert waiting(database) == 2
    # And all are published when it is back
    invigilator["BROKER_URL"] = broker.url
    publish_update("c", database)
    wait_until(lambda: not waiting(database))
    assert broker.taken_ids() == ["a", "b", "c"]


def test_a_broker_that_does_not_answer_slows_no_request(
    database: str, invigilator: dict[str, Any], broker: Broker
) -> None:
    from events.django.courier import courier_of

    with peer(say_nothing) as silent:
        # Given a thread that waits for the broker
        invigilator["BROKER_URL"] = f"redis://{silent.address}"
        publish_update("a", database)
        wait_until(lambda: silent.accepted > 0)
        # When requests publish meanwhile
        for command_id in ("b", "c"):
            with transaction.atomic(using=database):
                publish_update(command_id, database)
        # Then they are done while it still waits
        assert courier_of(database).is_running
        assert waiting(database) == 3
    # And nothing is lost
    invigilator["BROKER_URL"] = broker.url
    publish_update("d", database)
    wait_until(lambda: not waiting(database))
    assert broker.taken_ids() == ["a", "b", "c", "d"]


def test_the_thread_warns_once_until_it_succeeds(
    database: str, invigilator: dict[str, Any], broker: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    from events.django.courier import Courier

    courier = Courier(database)
    for url, warnings in ((AWAY, 1), (AWAY, 1), (broker.url, 1), (AWAY, 2)):
        invigilator["BROKER_URL"] = url
        insert("a", database)
        courier.wake()
        wait_until(lambda: not courier.is_running)
        assert caplog.text.count("commands wait in the outbox") == warnings


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
