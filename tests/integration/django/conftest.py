"""A Django with the outbox, on SQLite and on PostgreSQL, and a broker inside the process."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import django
import kombu
import pytest
from django.conf import settings
from django.core.management import call_command
from django.db import connections
from sqlalchemy.engine import make_url

from events.envelope import parse
from events.publisher import RETRIES
from events.sharding import queue_name
from tests import engines
from tests.integration.django.patience import wait_until

SOURCE = "/lms/acme"


@pytest.fixture(scope="session")
def _django(postgres_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with engines.fresh_database(postgres_url, template="template0") as url:
        server = make_url(url)
        settings.configure(
            INSTALLED_APPS=["events.django"],
            USE_TZ=True,
            DATABASES={
                "default": {
                    "ENGINE": "django.db.backends.sqlite3",
                    "NAME": str(tmp_path_factory.mktemp("sqlite") / "lms.sqlite3"),
                    "OPTIONS": {"timeout": 60},
                },
                "postgresql": {
                    "ENGINE": "django.db.backends.postgresql",
                    "NAME": server.database,
                    "HOST": server.host,
                    "PORT": server.port,
                    "USER": server.username,
                    "PASSWORD": server.password,
                },
            },
        )
        django.setup()
        for alias in ("default", "postgresql"):
            call_command("migrate", database=alias, verbosity=0)
        yield
        connections.close_all()


class Broker:
    """kombu's broker inside the process."""

    URL = "memory://"

    def __init__(self) -> None:
        self._connection = kombu.Connection(self.URL)
        self._queue = self._connection.SimpleQueue(queue_name(0))
        self._queue.clear()

    def taken(self) -> list[str]:
        """Take all messages; return their ids."""
        messages = []
        while self._queue.qsize():
            message = self._queue.get(block=False)
            message.ack()
            messages.append(
                parse(message.body.encode() if isinstance(message.body, str) else message.body).id
            )
        return messages


@pytest.fixture
def broker() -> Broker:
    """An empty broker."""
    return Broker()


@pytest.fixture
def invigilator(_django: None, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The setting `INVIGILATOR`, which a test may change."""
    setting: dict[str, Any] = {"BROKER_URL": Broker.URL, "SOURCE": SOURCE}
    monkeypatch.setattr(settings, "INVIGILATOR", setting, raising=False)
    monkeypatch.setitem(RETRIES, "interval_step", 0)  # a broker that is away is given up sooner
    return setting


@pytest.fixture(params=["default", "postgresql"])
def database(request: pytest.FixtureRequest, invigilator: dict[str, Any]) -> Iterator[str]:
    """The alias of a database with an empty outbox. At the end its courier rests."""
    from events.django.courier import courier_of
    from events.django.models import OutboxCommand, SenderLock

    alias = str(request.param)
    yield alias
    wait_until(lambda: not courier_of(alias).is_running)
    OutboxCommand.objects.using(alias).all().delete()
    SenderLock.objects.using(alias).all().delete()


@pytest.fixture
def sqlite_file(_django: None) -> Path:
    """The file of the database `default`."""
    return Path(settings.DATABASES["default"]["NAME"])
