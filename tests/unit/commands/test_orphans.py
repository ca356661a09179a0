"""The search for orphan queues on a broker that forbids it."""

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from events.connecting import Connection
from events.sharding import MAX_SHARDS, queue_name
from worker.commands.sources import BrokerAwayError
from worker.commands.sources.brokers import orphans, queued
from worker.errors import ConfigurationError


class RefusedError(Exception):
    reply_code = 403


class Refusing:
    """A connection whose user may not inspect any queue."""

    connection_errors = ()
    channel_errors = (RefusedError,)

    def connect(self) -> None: ...

    def __enter__(self) -> "Refusing":
        return self

    def __exit__(self, *_: object) -> None: ...

    @contextmanager
    def channel(self) -> Iterator["Refusing"]:
        yield self

    def queue_declare(self, *_: object, **__: object) -> Any:
        raise RefusedError


class Full(Refusing):
    """A connection to a broker that has every queue."""

    def queue_declare(self, *_: object, **__: object) -> Any:
        return SimpleNamespace(message_count=1, consumer_count=0)


def test_the_search_ends_with_the_last_number_that_a_shard_may_have(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Connection, "to", lambda *_, **__: Full())
    found = [one.queue for one in orphans("amqp://h//", MAX_SHARDS - 1)]
    assert found[1:] == [queue_name(MAX_SHARDS - 1)]


@pytest.mark.parametrize("url", ["redis://127.0.0.1:1/0", "amqp://127.0.0.1:1//"])
def test_a_broker_that_is_away(url: str) -> None:
    with pytest.raises(BrokerAwayError, match="the broker is away"):
        orphans(url, 1)


def test_a_queue_that_may_not_be_looked_at_is_not_taken_for_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Connection, "to", lambda *_, **__: Refusing())
    with pytest.raises(BrokerAwayError, match="RefusedError"):
        orphans("amqp://h//", 1)


def test_a_url_that_cannot_be_read_is_a_wrong_setting() -> None:
    with pytest.raises(ConfigurationError, match="INVIGILATOR_BROKER_URL"):
        queued("redis://h:nonsense/0", 1)
