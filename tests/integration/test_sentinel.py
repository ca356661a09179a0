"""Redis Sentinel: everybody goes to the primary's database, and on to the next primary's."""

import re
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import TypeVar

import pytest

from events.broker_url import read_broker_url
from events.errors import PublishError
from events.publisher import Publisher
from events.sharding import queue_name
from tests import sentinel
from tests.sentinel import DATABASE, QUOTED, Group
from tests.waysin import LIMIT, OFFER, QUEUE, celery_on, every_way_in
from worker.celery.dispatcher import CeleryDispatcher
from worker.commands.sources import BrokerAwayError, open_source
from worker.commands.sources.brokers import check_server, queued
from worker.errors import ConfigurationError, Transient

PATIENCE_S = 60
A_LINE = 250  # characters
T = TypeVar("T")
AWAY = (BrokerAwayError, PublishError, Transient)


@pytest.fixture(scope="module")
def _group() -> Iterator[Group]:
    with sentinel.running_group() as group:
        yield group


@pytest.fixture
def group(_group: Group) -> Group:
    """Whose primary is empty."""
    with _group.client(_group.primary()) as client:
        client.flushall()
    return _group


def until_it_works(attempt: Callable[[], T]) -> T:
    """Try as the processes do: again and again while the broker is away."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        with suppress(*AWAY):
            return attempt()
    return attempt()


def test_every_way_in_leads_to_the_primary(group: Group, monkeypatch: pytest.MonkeyPatch) -> None:
    every_way_in(group.url, monkeypatch)


def test_kombus_own_form_is_read_as_well(group: Group, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second, third = group.sentinels
    every_way_in(
        f"sentinel://:{QUOTED}@127.0.0.1:{first};sentinel://127.0.0.1:{second};"
        f"sentinel://127.0.0.1:{third}/{DATABASE}?{group.parameters}",
        monkeypatch,
    )


@pytest.mark.parametrize("reuse", [True, False])
def test_everybody_uses_the_same_database(group: Group, reuse: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    # When a command is published and an effect offered
    with Publisher(group.url, source="/tests", reuse_redis_client=reuse) as publisher:
        publisher.publish_raw(b"hello", 0)
    with celery_on(group.url, monkeypatch) as app:
        CeleryDispatcher(app).dispatch([OFFER])
    # Then both are in the database that the URL names
    with group.client(group.primary()) as client:
        assert set(client.keys()) == {queue_name(0).encode(), QUEUE.encode()}
        assert client.info("keyspace").keys() == {f"db{DATABASE}"}


def test_a_failover_between_two_messages(group: Group, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given open connections of everybody
    with (
        Publisher(group.url, source="/tests") as publisher,
        open_source(group.url, queue_name(0), LIMIT) as source,
        celery_on(group.url, monkeypatch) as app,
    ):
        dispatcher = CeleryDispatcher(app)
        publisher.publish_raw(b"before", 0)
        dispatcher.dispatch([OFFER])
        [taken] = source.take(LIMIT, 10)
        group.wait_for_replica()
        # When the primary changes
        new = group.fail_over()
        # Then what was taken cannot be acknowledged, and comes again from the new one
        with suppress(BrokerAwayError):
            source.ack([taken])
        until_it_works(lambda: publisher.publish_raw(b"after", 0))
        until_it_works(lambda: dispatcher.dispatch([OFFER]))
        with until_it_works(lambda: open_source(group.url, queue_name(0), LIMIT)) as again:
            bodies = [message.body for message in again.take(LIMIT, 10)]
        assert bodies[-1:] == [b"after"]
        assert until_it_works(lambda: queued(group.url, 1)) == len(bodies)
        with group.client(new) as client:
            assert client.llen(queue_name(0)) == len(bodies)
            assert client.llen(QUEUE) == 2


def test_a_replica_is_no_source(group: Group) -> None:
    """Sentinels that have not heard of a failover would lead to one."""
    url = f"redis://:{QUOTED}@127.0.0.1:{group.replica()}/{DATABASE}"
    with pytest.raises(BrokerAwayError, match="read only replica"):
        open_source(url, queue_name(0), LIMIT)


def test_one_sentinel_that_answers_is_enough(group: Group, monkeypatch: pytest.MonkeyPatch) -> None:
    every_way_in(
        f"sentinel://:{QUOTED}@127.0.0.1:1,127.0.0.1:2,127.0.0.1:{group.sentinels[0]}/{DATABASE}?{group.parameters}",
        monkeypatch,
    )


@pytest.mark.parametrize(
    "parameters",
    [
        "master_name=nobody&sentinel_password=of-the-sentinels",
        "master_name=exams&sentinel_password=s3cret",
        "master_name=exams&sentinel_password=of-the-sentinels",
    ],
)
@pytest.mark.parametrize("away", [True, False])
def test_what_is_refused_is_told_in_one_line(
    group: Group, away: bool, parameters: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No Sentinel there, no such server, another password of the Sentinels, another password of the server."""
    url = f"sentinel://:s3cret@127.0.0.1:{1 if away else group.sentinels[0]}/0?{parameters}"
    with Publisher(url, source="/tests") as publisher, celery_on(url, monkeypatch) as app:
        attempts: list[Callable[[], object]] = [
            lambda: publisher.publish_raw(b"", 0),
            lambda: open_source(url, queue_name(0), LIMIT),
            lambda: queued(url, 1),
            lambda: CeleryDispatcher(app).dispatch([OFFER]),
        ]
        for attempt in attempts:
            with pytest.raises(AWAY) as refused:
                attempt()
            said = str(refused.value)
            assert "\n" not in said
            assert not re.search("s3cret|of-the-sentinels", said)
            assert len(said) < A_LINE


def test_a_sentinel_is_not_taken_for_a_server(group: Group, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a Sentinel's address in a URL for a server
    url = f"redis://:{sentinel.SENTINEL_PASSWORD}@127.0.0.1:{group.sentinels[0]}"
    advice = "is a Sentinel; for the server that it knows write sentinel://"
    starts: list[Callable[[], object]] = [
        lambda: open_source(url, queue_name(0), LIMIT),
        lambda: queued(url, 1),
        lambda: check_server(url),
    ]
    # Then everybody says so
    for start in starts:
        with pytest.raises(ConfigurationError, match=f"^the broker {advice}"):
            start()
    with Publisher(url, source="/tests") as publisher, pytest.raises(PublishError, match=advice):
        publisher.publish_raw(b"", 0)
    with celery_on(url, monkeypatch) as app, pytest.raises(Transient, match=advice):
        CeleryDispatcher(app).dispatch([OFFER])


def test_workers_tell_nobody_the_passwords(group: Group, monkeypatch: pytest.MonkeyPatch) -> None:
    """Celery's workers answer to everybody who asks over the broker, Flower for example."""
    with celery_on(group.url, monkeypatch) as app, app.connection_for_write() as connection:
        told = dict(connection.info())
        assert told.pop("password") == sentinel.PASSWORD  # Celery leaves it out
        assert told["transport_options"]["master_name"] == sentinel.NAME
        assert not any(
            secret in repr(told) for secret in (sentinel.SENTINEL_PASSWORD, QUOTED, sentinel.PASSWORD)
        )
        # And it connects all the same
        assert read_broker_url(group.url).sentinels is not None
        connection.connect()
