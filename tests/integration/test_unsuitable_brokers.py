"""Servers that cannot be our broker, a Redis Cluster first: everybody says why in one line."""

import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from redis import Redis

from events.errors import PublishError
from events.publisher import Publisher
from events.sharding import queue_name
from invigilator.local import valkey
from invigilator.local.server import is_free
from tests import engines
from tests.forkserver import run_to_end
from tests.waysin import LIMIT, OFFER, celery_on
from worker.celery.dispatcher import CeleryDispatcher
from worker.commands.sources import open_source
from worker.commands.sources.brokers import check_server, queued
from worker.errors import ConfigurationError, Transient

PATIENCE_S = 60
BUS_PORTS = random.sample(range(20_000, 30_000), 100)  # which no system hands out by itself
REASON = "is a Redis Cluster, which Celery cannot use"


@pytest.fixture(scope="module")
def cluster_url() -> Iterator[str]:
    """A cluster of one node, which has every slot: it would take our messages."""
    with ExitStack() as resources:
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(valkey.SETTINGS, "cluster-enabled", "yes")
            # Else it is 10,000 above the other one, and so perhaps too high.
            patch.setitem(valkey.SETTINGS, "cluster-port", str(next(filter(is_free, BUS_PORTS))))
            server = resources.enter_context(engines.running_valkey())
        client = resources.enter_context(Redis.from_url(server.url))
        client.execute_command("CLUSTER", "ADDSLOTSRANGE", "0", "16383")
        deadline = time.monotonic() + PATIENCE_S
        while client.cluster("info")["cluster_state"] != "ok":
            assert time.monotonic() < deadline
        yield server.url


def test_whoever_connects_says_why_not(cluster_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for start in (lambda: open_source(cluster_url, queue_name(0), LIMIT), lambda: queued(cluster_url, 1)):
        with pytest.raises(ConfigurationError, match=f"^the broker {REASON}"):
            start()
    with pytest.raises(ConfigurationError, match=f"^the broker {REASON}"):
        check_server(cluster_url)
    with celery_on(cluster_url, monkeypatch) as app, pytest.raises(Transient, match=f": it {REASON}"):
        CeleryDispatcher(app).dispatch([OFFER])


@pytest.mark.parametrize("reuse", [True, False])
def test_a_publisher_publishes_nothing_there(cluster_url: str, reuse: bool) -> None:
    with (
        Publisher(cluster_url, source="/tests", reuse_redis_client=reuse) as publisher,
        pytest.raises(PublishError, match=REASON),
    ):
        publisher.publish_raw(b"", 0)
    with Redis.from_url(cluster_url) as client:
        assert client.keys() == []


@pytest.mark.parametrize("reuse", [True, False])
def test_a_database_that_is_not_there(valkey_url: str, reuse: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"{valkey_url.removesuffix('/0')}/99"
    reason = "has no database of that number"
    starts: list[Callable[[], object]] = [
        lambda: open_source(url, queue_name(0), LIMIT),
        lambda: queued(url, 1),
        lambda: check_server(url),
    ]
    for start in starts:
        with pytest.raises(ConfigurationError, match=f"^the broker {reason}"):
            start()
    with (
        Publisher(url, source="/tests", reuse_redis_client=reuse) as publisher,
        pytest.raises(PublishError, match=f"it {reason}"),
    ):
        publisher.publish_raw(b"", 0)
    with celery_on(url, monkeypatch) as app, pytest.raises(Transient, match=f": it {reason}"):
        CeleryDispatcher(app).dispatch([OFFER])


@pytest.mark.parametrize(
    "command",
    [
        "invigilator consume",
        "invigilator relay",
        "invigilator status",
        "celery -A worker.app worker --pool threads --queues invigilator.effects.email --loglevel ERROR",
    ],
)
def test_a_process_ends_with_one_line(command: str, cluster_url: str, database_url: str) -> None:
    ran = run(command, INVIGILATOR_BROKER_URL=cluster_url, INVIGILATOR_DATABASE_URL=database_url)
    assert ran.returncode == 1
    assert "Traceback" not in ran.stderr
    [line] = [line for line in ran.stderr.splitlines() if line.startswith("invigilator: ")]
    assert line.startswith(f"invigilator: the broker {REASON}")


@pytest.mark.parametrize(
    "command", ["invigilator relay", "celery -A worker.app worker", "celery -A worker.app inspect ping"]
)
@pytest.mark.parametrize("name", ["CELERY_BROKER_URL", "CELERY_BROKER_READ_URL", "CELERY_BROKER_WRITE_URL"])
def test_celery_is_given_no_other_broker(command: str, name: str, valkey_url: str, database_url: str) -> None:
    ran = run(
        command,
        INVIGILATOR_BROKER_URL=valkey_url,
        INVIGILATOR_DATABASE_URL=database_url,
        **{name: "redis://:s3cret@127.0.0.1:1/5"},
    )
    assert ran.returncode == 1
    assert ran.stderr.splitlines()[-1].startswith(
        f"invigilator: {name} (or celery's --broker) gives Celery another"
    )
    assert "s3cret" not in ran.stderr


def run(command: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    """Run a command of the virtual environment; it must end by itself."""
    programs = Path(sys.executable).parent
    with tempfile.TemporaryDirectory(prefix="invigilator-test-") as folder:
        given = {"PATH": f"{programs}:{os.defpath}", **environment}
        return run_to_end(command.split(), given, Path(folder), PATIENCE_S)
