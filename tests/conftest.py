"""Fixtures for every test. The engines start only when a test asks for one."""

import gc
import logging
from collections.abc import Generator, Iterator

import kombu
import pytest
import redis
import structlog
from hypothesis import settings
from sqlalchemy import Connection, Engine
from sqlalchemy.orm import Session
from structlog.typing import EventDict

from events.sharding import SHARDS_KEY, queue_name
from tests import engines
from tests.authorities import FEW_AUTHORITIES
from tests.tls import Authority, running_tls_rabbitmq
from tests.turns import MUCH_MEMORY, my_turn
from worker.kinds import QUEUES

settings.register_profile("full", deadline=None)  # a busy machine is no failure
settings.register_profile("fast", deadline=None, max_examples=10)
settings.load_profile("full")  # `make test-fast` asks for the other one

LONGEST = ("tests/stateful/", "tests/integration/local/test_up.py", "tests/install/")
"""One worker of pytest-xdist runs a whole file. A long file that begins last keeps the other workers waiting."""


COVERING = (
    *(f"tests/unit/{name}" for name in ("commands/", "effects/", "events/", "rules/", "test_")),
    *(f"tests/integration/{name}/" for name in ("acts", "commands", "django", "effects")),
    *(f"tests/integration/cli/test_{name}.py" for name in ("doctor", "system")),
    "tests/integration/db/test_quarantine.py",
    "tests/integration/tls/test_brokers.py",
    "tests/integration/web/test_sending.py",
    "tests/integration/test_",
)
"""Where coverage is measured. These tests alone reach all of it, and to measure a test doubles its CPU time."""
MOST_SHARDS = 8
"""No test has more shards at once."""
OF_RULES = "tests/unit/rules/"
"""Where random examples are measured, too: every pair of statuses under every policy is what these are about."""


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """What is collected stays to the end, so the garbage collector need not look through it, then or later."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()
        gc.freeze()


@pytest.hookimpl(trylast=True)  # Hypothesis marks its tests in this hook
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the longest files first, and measure the coverage of few tests. Random examples take the most time."""
    items.sort(key=lambda item: not item.nodeid.startswith(LONGEST))
    for item in items:
        is_random = item.get_closest_marker("hypothesis") and not item.nodeid.startswith(OF_RULES)
        if is_random or not item.nodeid.startswith(COVERING):
            item.add_marker("no_cover")


@pytest.fixture(scope="module", autouse=True)
def few_authorities() -> Iterator[None]:
    """No server of a test has a public certificate, so nobody reads the system's authorities."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in FEW_AUTHORITIES.items():
            patch.setenv(name, value)
        yield


@pytest.fixture
def logged() -> Iterator[list[EventDict]]:
    """What our code logs during the test: of each line `event`, `log_level` and its fields."""
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG))
    with structlog.testing.capture_logs() as lines:
        yield lines
    structlog.configure(**before)


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """The URL of a PostgreSQL that lives as long as the pytest session, with the migrated template."""
    with engines.running_postgres() as server:
        yield server.url


@pytest.fixture
def database_url(postgres_url: str) -> Iterator[str]:
    """A migrated database of the test's own, to commit in."""
    with engines.fresh_database(postgres_url) as url:
        yield url


@pytest.fixture
def empty_database_url(postgres_url: str) -> Iterator[str]:
    """A database without any table."""
    with engines.fresh_database(postgres_url, template="template0") as url:
        yield url


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    """An SQLAlchemy engine on `database_url`."""
    with engines.disposed(database_url) as engine:
        yield engine


@pytest.fixture(scope="session")
def _shared_engine(postgres_url: str) -> Iterator[Engine]:
    with (
        engines.fresh_database(postgres_url) as url,
        engines.disposed(url) as engine,
    ):
        yield engine


@pytest.fixture
def connection(_shared_engine: Engine) -> Iterator[Connection]:
    """A connection to a database that tests share, in a transaction that is rolled back at the end."""
    with _shared_engine.connect() as connection:
        transaction = connection.begin()
        try:
            yield connection
        finally:
            transaction.rollback()


@pytest.fixture
def session(connection: Connection) -> Iterator[Session]:
    """A session whose commits are savepoints: fast, and forgotten after the test."""
    with Session(connection, join_transaction_mode="create_savepoint") as session:
        yield session


@pytest.fixture(scope="session")
def _valkey_url() -> Iterator[str]:
    with engines.running_valkey() as server:
        yield server.url


@pytest.fixture
def valkey_url(_valkey_url: str) -> str:
    """The URL of an empty Valkey that lives as long as the pytest session."""
    client = redis.Redis.from_url(_valkey_url)
    client.flushall()
    client.close()
    return _valkey_url


@pytest.fixture
def much_memory() -> Iterator[None]:
    """For a test that needs hundreds of MiB: no other such test runs at the same time."""
    with my_turn(MUCH_MEMORY):
        yield


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Signed the certificate of every server that has one; nobody trusts it unless told to."""
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="session")
def tls_rabbitmq(authority: Authority) -> Iterator[tuple[str, int]]:
    """The URL of a RabbitMQ that lives as long as the pytest session, and the port where it speaks TLS."""
    with running_tls_rabbitmq(authority) as rabbitmq:
        yield rabbitmq


@pytest.fixture
def rabbitmq_url(tls_rabbitmq: tuple[str, int]) -> str:
    """The URL of that RabbitMQ, without TLS. Nothing waits in our queues, and no number of shards is told."""
    url, _ = tls_rabbitmq
    with kombu.Connection(url) as connection:
        for queue in (*map(queue_name, range(MOST_SHARDS)), SHARDS_KEY, *set(QUEUES.values())):
            connection.default_channel.queue_delete(queue)
    return url
