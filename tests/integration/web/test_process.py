"""`invigilator web` as a process: what it reads at its start, and what runs beside the server."""

import socket
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI

from invigilator.web import server
from worker.errors import ConfigurationError
from worker.feeds.comparison import Comparison
from worker.settings import Settings
from worker.subscriptions import load_subscriptions


def settings(database_url: str, file: Path | None) -> Settings:
    values: dict[str, Any] = {
        "database_url": database_url,
        "broker_url": "redis://127.0.0.1:1",
        "web_address": "127.0.0.1:0",
        "subscriptions_file": file,
    }
    return Settings(**values)


@pytest.fixture
def beside(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What would run beside the server, which does not run."""
    found: list[Any] = []
    monkeypatch.setattr(server, "run", lambda _server, loops, _listener: found.extend(loops))
    return found


def test_a_file_of_subscriptions_is_compared(database_url: str, beside: list[Any], tmp_path: Path) -> None:
    file = tmp_path / "subscriptions.toml"
    file.write_text("[api]\n")
    server.serve(settings(database_url, file))
    [compared] = [one.__self__ for one in beside if isinstance(getattr(one, "__self__", None), Comparison)]
    assert (compared.file, compared.subscriptions) == (file, load_subscriptions(file))
    assert compared.look([]) == ["api"]


def test_without_a_file_nothing_is_compared(database_url: str, beside: list[Any]) -> None:
    server.serve(settings(database_url, None))
    assert len(beside) == 1


def test_a_file_that_is_wrong_ends_it(database_url: str, beside: list[Any], tmp_path: Path) -> None:
    file = tmp_path / "subscriptions.toml"
    file.write_text("[fed.lms]\n")
    with pytest.raises(ConfigurationError, match="subscriptions file"):
        server.serve(settings(database_url, file))
    assert beside == []


def test_an_answer_is_not_held_back_until_its_beginning_is_acknowledged(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    accepted: list[int] = []

    def run(_server: Any, _loops: Any, listener: socket.socket) -> None:
        with socket.create_connection(listener.getsockname()):
            connection, _ = listener.accept()
            with connection:
                accepted.append(connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))

    monkeypatch.setattr(server, "run", run)
    server.serve(settings(database_url, None))
    assert [bool(one) for one in accepted] == [True]


def test_no_other_protocol_is_spoken() -> None:
    # Whatever package for WebSockets is there, its connections would have none of our time-outs
    assert server.Server(FastAPI(), []).config.ws == "none"
