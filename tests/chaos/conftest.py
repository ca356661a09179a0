"""Fixtures of the tests with faults: a stack on either broker."""

from collections.abc import Iterator

import pytest
from kombu import Connection

from events.sharding import queue_name
from tests.acceptance.conftest import (
    calm_database_url,
    pytest_runtest_makereport,
    start_postgres,
    start_valkey,
)
from tests.acceptance.harness import Stack
from worker.kinds import QUEUES

__all__ = ["calm_database_url", "pytest_runtest_makereport", "start_postgres", "start_valkey"]


@pytest.fixture
def empty_rabbitmq_url(rabbitmq_url: str) -> Iterator[str]:
    """The session's RabbitMQ; the queues that a test has made are deleted after it."""
    yield rabbitmq_url
    with Connection(rabbitmq_url) as connection:
        for queue in (queue_name(0), *set(QUEUES.values())):
            connection.default_channel.queue_delete(queue)


@pytest.fixture(params=["valkey", "rabbitmq"])
def broker_url(request: pytest.FixtureRequest) -> str:
    """An empty broker: every test runs on both."""
    fixture = {"valkey": "valkey_url", "rabbitmq": "empty_rabbitmq_url"}[request.param]
    return str(request.getfixturevalue(fixture))


@pytest.fixture
def stack(database_url: str, broker_url: str) -> Iterator[Stack]:
    """A stack on either broker; nothing in it is started."""
    with Stack(database_url, broker_url) as stack:
        yield stack
