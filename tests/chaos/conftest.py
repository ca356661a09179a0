"""Fixtures of the tests with faults: a stack on either broker."""

from collections.abc import Iterator

import pytest

from tests.acceptance.conftest import (
    calm_database_url,
    pytest_runtest_makereport,
    start_postgres,
    start_valkey,
)
from tests.acceptance.harness import Stack

__all__ = ["calm_database_url", "pytest_runtest_makereport", "start_postgres", "start_valkey"]


@pytest.fixture(params=["valkey", "rabbitmq"])
def broker_url(request: pytest.FixtureRequest) -> str:
    """An empty broker: every test runs on both."""
    return str(request.getfixturevalue(f"{request.param}_url"))


@pytest.fixture
def stack(database_url: str, broker_url: str) -> Iterator[Stack]:
    """A stack on either broker; nothing in it is started."""
    with Stack(database_url, broker_url) as stack:
        yield stack
