"""A Django with the outbox, on SQLite, PostgreSQL and MariaDB, and its broker."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from queue import Empty
from typing import Any

import django
import kombu
import pymysql
import pytest
from django.conf import settings
from django.core.management import call_command
from django.db import connections

from events.commands import Command
from events.envelope import parse
from events.publisher import RETRIES
from events.sharding import queue_name
from tests import engines, mariadb
from tests.integration.django.patience import wait_until

SOURCE = "/lms/acme"
SEVERAL_SENDERS = ("postgresql", "mariadb")


@pytest.fixture(scope="session")
def _mariadb_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("mariadb")


@pytest.fixture(scope="session")
def _mariadb(_django: None, _mariadb_folder: Path) -> Iterator[None]:
    with mariadb.running_mariadb(_mariadb_folder):
        call_command("migrate", database="mariadb", verbosity=0)
        yield
        connections["mariadb"].close()


@pytest.fixture(scope="session")
def _django(
    postgres_url: str, _mariadb_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[None]:
    pymysql.install_as_MySQLdb()
    with engines.fresh_database(postgres_url, template="template0") as url:
        settings.configure(
            INSTALLED_APPS=["events.django"],
            USE_TZ=True,
            DATABASES={
                "default": {
                    "ENGINE": "django.db.backends.sqlite3",
                    "NAME": str(tmp_path_factory.mktemp("sqlite") / "lms.sqlite3"),
                    "OPTIONS": {"timeout": 60},
                },
                "postgresql": engines.for_django(url),
                "mariadb": mariadb.for_django(_mariadb_folder),
            },
        )
        django.setup()
        for alias in ("default", "postgresql"):
            call_command("migrate", database=alias, verbosity=0)
        yield
        connections.close_all()


class Broker:
    """What was published to a broker, by default to kombu's inside the process."""

    def __init__(self, url: str = "memory://") -> None:
        self.url = url
        self._connection = kombu.Connection(url)
        self._queue = self._connection.SimpleQueue(queue_name(0))
        self._queue.clear()

    def taken(self) -> list[Command]:
        """Take all messages; return them as commands."""
        commands = []
        with suppress(Empty):
            while message := self._queue.get_nowait():
                message.ack()
                body = message.body
                commands.append(parse(body.encode() if isinstance(body, str) else body))
        return commands

    def taken_ids(self) -> list[str]:
        """Take all messages; return their ids."""
        return [command.id for command in self.taken()]

    def close(self) -> None:
        """Close the connection."""
        self._queue.close()
        self._connection.close()


@pytest.fixture
def broker() -> Broker:
    """An empty broker."""
    return Broker()


@pytest.fixture
def invigilator(_django: None, broker: Broker, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The setting `INVIGILATOR`, which a test may change."""
    setting: dict[str, Any] = {"BROKER_URL": broker.url, "SOURCE": SOURCE}
    monkeypatch.setattr(settings, "INVIGILATOR", setting, raising=False)
    monkeypatch.setitem(RETRIES, "interval_step", 0)  # a broker that is away is given up sooner
    return setting


@pytest.fixture
def shared_broker(valkey_url: str, invigilator: dict[str, Any]) -> Iterator[Broker]:
    """An empty broker that other processes reach, and to which this one publishes, too."""
    broker = Broker(valkey_url)
    invigilator["BROKER_URL"] = broker.url
    yield broker
    broker.close()


@pytest.fixture(params=["default", *SEVERAL_SENDERS])
def database(request: pytest.FixtureRequest, invigilator: dict[str, Any]) -> Iterator[str]:
    """The alias of a database with an empty outbox. At the end its courier rests."""
    from events.django.courier import courier_of
    from events.django.models import OutboxCommand, SenderLock

    alias = str(request.param)
    if alias == "mariadb":
        request.getfixturevalue("_mariadb")
    yield alias
    wait_until(lambda: not courier_of(alias).is_running)
    OutboxCommand.objects.using(alias).all().delete()
    SenderLock.objects.using(alias).all().delete()


@pytest.fixture
def asleep(monkeypatch: pytest.MonkeyPatch, database: str) -> str:
    """A database whose commits wake no courier."""
    from events.django.courier import Courier

    monkeypatch.setattr(Courier, "wake", lambda self: None)
    return database
