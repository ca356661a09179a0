"""Fixtures of the acceptance tests, and the state of the system when one of them fails."""

from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import redis

from invigilator.local import valkey
from invigilator.local.server import Server
from tests import engines
from tests.acceptance.harness import Stack

MakeStack = Callable[..., Stack]
Start = Callable[[Path], Server]


@pytest.fixture(scope="module")
def make_module_stack(postgres_url: str, _valkey_url: str) -> Iterator[MakeStack]:
    """Makes a stack on Valkey that the tests of a module share; nothing in it is started."""
    with ExitStack() as resources:

        def make(broker_url: str | None = None, **settings: object) -> Stack:
            database_url = resources.enter_context(engines.fresh_database(postgres_url))
            if broker_url is None:
                with redis.Redis.from_url(_valkey_url) as client:
                    client.flushall()
            return resources.enter_context(Stack(database_url, broker_url or _valkey_url, **settings))

        yield make


@pytest.fixture
def stack(database_url: str, valkey_url: str) -> Iterator[Stack]:
    """A stack on Valkey of the test's own; nothing in it is started."""
    with Stack(database_url, valkey_url) as stack:
        yield stack


@pytest.fixture
def start_postgres() -> Iterator[Start]:
    """Starts PostgreSQL on a folder; durable, because it will be killed."""
    with engines.starter(lambda folder, watch: engines.start_postgres(folder, watch=watch)) as start:
        yield start


@pytest.fixture
def start_valkey() -> Iterator[Start]:
    """Starts Valkey on a folder."""
    with engines.starter(lambda folder, watch: valkey.start(folder, watch=watch)) as start:
        yield start


@pytest.fixture
def calm_database_url(postgres_url: str) -> Iterator[str]:
    """Another migrated database, for the same commands on a calm day."""
    with engines.fresh_database(postgres_url) as url:
        yield url


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, Any]:
    """Show the state of the system with a failed test."""
    report = yield
    if report.when == "call" and report.failed:
        stacks = (value for value in getattr(item, "funcargs", {}).values() if isinstance(value, Stack))
        report.sections += [("the system", stack.report()) for stack in stacks]
    return report
