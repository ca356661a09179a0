"""The client's distribution, beside what an LMS has installed, on old and new releases of what it needs."""

import json
import re
import shutil
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import kombu
import pytest

from events.envelope import parse
from events.sharding import queue_name
from tests import engines, mariadb
from tests.install.environments import CONSTRAINTS, ROOT, Environment, build_wheel, interpreter

HERE = Path(__file__).parent
SCRIPT = HERE / "client.py"
REQUIRED = re.compile(r"^Requires-Dist: (?P<name>[\w-]+)[^;\n]*$", re.MULTILINE)


@dataclass(frozen=True)
class Neighbours:
    """What an LMS has installed beside the client.

    Parameters:
        versions: the releases with which the client is tried, as they begin.
        constraints: pins them, and everything that they bring.
        other: a distribution that the client has nothing to do with.
        modules: what that one brings.
        extras: of the client.
        missing: packages that these extras do not bring.
        database: on which Django's outbox is tried.
    """

    versions: dict[str, str]
    constraints: Path
    other: str
    modules: tuple[str, ...]
    extras: str = "redis,django,http"
    missing: tuple[str, ...] = ()
    database: Literal["sqlite", "postgresql", "mariadb"] = "sqlite"


NEIGHBOURS = {
    # `opensearch-py` brings another package `events`.
    "oldest": Neighbours(
        {"kombu": "5.3.0", "redis": "4.6.0", "pydantic": "2.5.0", "Django": "4.2"},
        HERE / "oldest.txt",
        "opensearch-py",
        ("opensearchpy", "events"),
        extras="redis,django",
        missing=("httpx",),
        database="postgresql",
    ),
    "celery-5.4": Neighbours(
        {"python": "3.12", "kombu": "5.3.", "redis": "8.", "pydantic": "2.5.0", "Django": "4.2."},
        HERE / "celery-5.4.txt",
        "celery",
        ("celery",),
        database="mariadb",
    ),
    "celery-5.5": Neighbours(
        {"python": "3.13", "kombu": "5.5.", "redis": "4.6.0", "pydantic": "2.14.", "Django": "5.2."},
        HERE / "celery-5.5.txt",
        "celery",
        ("celery",),
    ),
    "newest": Neighbours(
        {"kombu": "5.7.", "redis": "8.", "pydantic": "2.14.", "Django": "5.2."},
        CONSTRAINTS,
        "celery",
        ("celery",),
    ),
}


DRIVERS = {"sqlite": [], "postgresql": ["psycopg2-binary"], "mariadb": ["PyMySQL"]}
"""What Django needs besides to reach a database."""


@pytest.fixture(scope="module")
def client_wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `pip wheel ./events` builds."""
    return build_wheel(ROOT / "events", tmp_path_factory.mktemp("client"), "--wheel")


class Queue:
    """The queue of the only shard of a broker."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._connection = kombu.Connection(url)
        self._queue = self._connection.SimpleQueue(queue_name(0))
        self._queue.clear()

    def learners(self, number: int) -> list[str]:
        """Take messages until they are about so many learners; return these in the order in which they came.

        On SQLite the outbox may send a command twice.
        """
        found: dict[str, None] = {}
        while len(found) < number:
            message = self._queue.get(timeout=60)
            message.ack()
            body = message.body.encode() if isinstance(message.body, str) else bytes(message.body)
            found[str(parse(body).data.learner_id)] = None
        return list(found)

    def close(self) -> None:
        """Close the connection."""
        self._queue.close()
        self._connection.close()


@pytest.fixture
def queues(valkey_url: str, rabbitmq_url: str) -> Iterator[list[Queue]]:
    """One for each kind of broker."""
    queues = [Queue(valkey_url), Queue(rabbitmq_url)]
    yield queues
    for queue in queues:
        queue.close()


def test_it_asks_for_kombu_and_pydantic_only(client_wheel: Path) -> None:
    with zipfile.ZipFile(client_wheel) as wheel:
        [metadata] = [name for name in wheel.namelist() if name.endswith(".dist-info/METADATA")]
        assert set(REQUIRED.findall(wheel.read(metadata).decode())) == {"kombu", "pydantic"}


def test_it_is_typed_and_brings_no_package_of_the_worker(client_wheel: Path) -> None:
    with zipfile.ZipFile(client_wheel) as wheel:
        names = wheel.namelist()
    assert "invigilator_client/py.typed" in names
    assert {name.split("/")[0].split("-")[0] for name in names} == {"invigilator_client"}


@pytest.fixture
def django_database(name: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[dict[str, object]]:
    """Django's settings of an empty database of the kind that is tried."""
    match NEIGHBOURS[name].database:
        case "postgresql":
            yield engines.for_django(request.getfixturevalue("empty_database_url"))
        case "mariadb":
            folder = tmp_path / "mariadb"
            folder.mkdir()
            with mariadb.running_mariadb(folder):
                yield mariadb.for_django(folder)
        case "sqlite":
            yield {"ENGINE": "django.db.backends.sqlite3", "NAME": "lms.sqlite3"}


@pytest.mark.parametrize("name", NEIGHBOURS)
def test_it_works_beside(
    name: str,
    client_wheel: Path,
    queues: list[Queue],
    django_database: dict[str, object],
    tmp_path: Path,
) -> None:
    # Given an environment of these releases
    neighbours = NEIGHBOURS[name]
    python = interpreter(neighbours.versions.get("python"))
    environment = Environment.create(tmp_path / "env", python=python, constraints=neighbours.constraints)
    drivers = DRIVERS[neighbours.database]
    environment.install(f"{client_wheel}[{neighbours.extras}]", neighbours.other, *drivers)
    # When everything that the client is for is done there
    script = shutil.copy(SCRIPT, tmp_path)
    told = {
        "brokers": [queue.url for queue in queues],
        "database": django_database,
        "beside": neighbours.modules,
        "missing": neighbours.missing,
    }
    run = environment.run("python", "-W", "error", str(script), json.dumps(told), folder=tmp_path)
    # Then it works, with these releases, and every command has come
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout)
    assert {
        one: found[one] for one, old in neighbours.versions.items() if not found[one].startswith(old)
    } == {}
    assert [queue.learners(3) for queue in queues] == [["42", "43", "44"]] * 2
