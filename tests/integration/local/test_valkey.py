"""Valkey from the wheel, on its own folder."""

from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from invigilator.local import valkey
from tests import engines
from tests.integration.local.test_postgres import Start
from worker.errors import ConfigurationError


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts engines that end with the test."""
    with engines.starter(lambda folder, watch: valkey.start(folder, watch=watch)) as start:
        yield start


def test_what_was_synced_survives_kill_9_under_the_same_address(tmp_path: Path, start: Start) -> None:
    first = start(tmp_path)
    with redis.Redis.from_url(first.url) as client:
        client.set("answer", 42)
        client.waitaof(1, 0, 5_000)
    first.process.kill()
    first.process.wait()

    second = start(tmp_path)

    assert second.url == first.url
    with redis.Redis.from_url(second.url) as client:
        assert client.get("answer") == b"42"


def test_a_password_is_asked_for_and_shown_to_nobody(tmp_path: Path, start: Start) -> None:
    running = start(tmp_path)
    password = (tmp_path / "password").read_text()

    with (
        redis.Redis(port=running.port, retry=Retry(NoBackoff(), 0)) as client,
        pytest.raises(redis.AuthenticationError),
    ):
        client.ping()
    assert password not in repr(running)
    assert password not in " ".join(psutil.Process(running.process.pid).cmdline())
    assert {
        (tmp_path / name).stat().st_mode & 0o077 for name in ("password", "valkey.conf", "valkey.log")
    } == {0}


def test_it_never_forgets_to_make_room(tmp_path: Path, start: Start) -> None:
    with redis.Redis.from_url(start(tmp_path).url, decode_responses=True) as client:
        settings = client.config_get("maxmemory-policy", "appendonly", "appendfsync", "bind")

    assert settings == {
        "maxmemory-policy": "noeviction",
        "appendonly": "yes",
        "appendfsync": "everysec",
        "bind": "127.0.0.1",
    }


def test_a_folder_may_have_any_name(tmp_path: Path, start: Start) -> None:
    running = start(tmp_path / 'it\'s "my" \\ data')

    with redis.Redis.from_url(running.url) as client:
        assert client.ping()


def test_a_server_that_outlived_its_starter_is_replaced(tmp_path: Path, start: Start) -> None:
    leftover = start(tmp_path)

    running = start(tmp_path)

    assert not leftover.is_running()
    with redis.Redis.from_url(running.url) as client:
        assert client.ping()


def test_why_it_does_not_start_is_said_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(valkey.SETTINGS, "appendfsync", "sometimes")

    with pytest.raises(ConfigurationError, match=r"Valkey did not start: .* \(log: "):
        valkey.start(tmp_path)
