"""The client's distribution, alone and beside what an LMS has installed, on the oldest and the newest releases."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kombu
import pytest

from events.envelope import parse
from events.sharding import queue_name
from tests.install.environments import ROOT, Environment

OLDEST = Path(__file__).with_name("oldest.txt")
SCRIPT = Path(__file__).with_name("client.py")
REQUIRED = re.compile(r"^Requires-Dist: (?P<name>[\w-]+)[^;\n]*$", re.MULTILINE)


@pytest.fixture(scope="session")
def client_wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `pip wheel ./events` builds."""
    folder = tmp_path_factory.mktemp("client")
    builder = Environment.create(folder / "builder")
    builder.install("--no-compile", "hatchling")
    return builder.build_wheel(ROOT / "events", folder)


@pytest.fixture(scope="session")
def oldest(client_wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """The oldest releases, beside `opensearch-py`, which brings another package `events`."""
    environment = Environment.create(tmp_path_factory.mktemp("oldest"), constraints=OLDEST)
    environment.install("--no-compile", f"{client_wheel}[redis,django]", "opensearch-py")
    return environment


@pytest.fixture(scope="session")
def newest(client_wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """The releases of our constraints with every extra, beside Celery."""
    environment = Environment.create(tmp_path_factory.mktemp("newest"))
    environment.install("--no-compile", f"{client_wheel}[redis,http,django]", "celery")
    return environment


@pytest.fixture(params=["valkey_url", "rabbitmq_url"])
def broker(request: pytest.FixtureRequest) -> Iterator[tuple[str, Any]]:
    """The URL of a broker of each kind, and the queue of the only shard."""
    url = str(request.getfixturevalue(request.param))
    with kombu.Connection(url) as connection:
        queue = connection.SimpleQueue(queue_name(0))
        queue.clear()
        yield url, queue
        queue.close()


def published(environment: Environment, broker: tuple[str, Any], folder: Path, *missing: str) -> list[str]:
    """Let an environment import everything and publish; return the ids of the learners that arrived."""
    url, queue = broker
    script = shutil.copy(SCRIPT, folder)
    run = environment.run("python", "-W", "error", str(script), url, *missing, folder=folder)
    assert run.returncode == 0, run.stderr
    messages = [queue.get(timeout=60) for _ in range(2)]
    for message in messages:
        message.ack()
    bodies = [one.body.encode() if isinstance(one.body, str) else bytes(one.body) for one in messages]
    return [str(parse(body).data.learner_id) for body in bodies]


def test_it_asks_for_kombu_and_pydantic_only(oldest: Environment) -> None:
    [metadata] = oldest.packages.glob("invigilator_client-*.dist-info/METADATA")
    assert set(REQUIRED.findall(metadata.read_text())) == {"kombu", "pydantic"}


def test_it_is_typed_and_brings_no_package_of_the_worker(newest: Environment) -> None:
    assert (newest.packages / "invigilator_client" / "py.typed").exists()
    assert not (newest.packages / "events").exists()


def test_publisher_and_outbox_work_on_the_oldest_releases(
    oldest: Environment, broker: tuple[str, Any], tmp_path: Path
) -> None:
    assert published(oldest, broker, tmp_path, "httpx") == ["42", "43"]


def test_publisher_and_outbox_work_beside_celery(
    newest: Environment, broker: tuple[str, Any], tmp_path: Path
) -> None:
    assert published(newest, broker, tmp_path) == ["42", "43"]
