"""The API on a database of its own, called without a network."""

import asyncio
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import Engine, text
from starlette.types import ASGIApp

from db import subscribers
from db.connect import make_engine
from db.ids import new_receipt
from events.commands import Command
from events.envelope import AWAITED_HEADER, render
from events.errors import PublishError
from invigilator.web.access import Access
from invigilator.web.app import make_app
from invigilator.web.followers import Followers
from invigilator.web.health import Readiness
from invigilator.web.metrics import Metrics
from invigilator.web.outcomes import Outcomes
from invigilator.web.reading import Reader
from invigilator.web.server import Server
from invigilator.web.tokens import Tokens
from invigilator.web.waiting import look_out
from tests import sample_commands as c
from tests.integration.cli.conftest import Record
from tests.loops import running
from worker.commands.decoding import Received
from worker.commands.sources import Message
from worker.health.facts import Facts

RATE = 1_000_000
NEVER_S = 3600.0
"""What waits for a poll waits for ever, so a test that passes was notified."""


@dataclass
class Sink:
    """A broker with a `consume` behind it, which handles each command as it is published."""

    record: Record
    consumes: bool = True
    away: bool = False
    published: list[Command] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)

    async def publish(self, command: Command, *, signing_key: str | None, awaited: bool) -> None:
        if self.away:
            raise PublishError
        self.published.append(command)
        self.keys.append(signing_key)
        if self.consumes:
            await asyncio.to_thread(self.consume, command, awaited)

    def consume(self, command: Command, awaited: bool = True) -> None:
        headers = {AWAITED_HEADER: "1"} if awaited else {}
        message = Message(render(command), None, headers=headers)
        self.record.handle(Received(command, new_receipt(), message, command.fingerprint()))


@dataclass
class Api:
    """The application, and how it is called."""

    engine: Engine
    reader: Reader
    sink: Sink
    outcomes: Outcomes
    followers: Followers
    tokens: Tokens | None = None
    rate: float = RATE
    facts: Facts = field(default_factory=Facts)
    metrics_token: str | None = None
    console: ASGIApp | None = None

    @cached_property
    def app(self) -> FastAPI:
        """Made by the first call: what is changed later does not count. To make it takes longer than most calls."""
        return make_app(
            engine=self.engine,
            reader=self.reader,
            publisher=self.sink,
            outcomes=self.outcomes,
            followers=self.followers,
            access=Access(self.tokens, self.rate),
            signing_key=lambda _command: None,
            readiness=Readiness(self.engine, "redis://127.0.0.1:1"),
            scraped=Metrics(self.engine, lambda: self.facts, lambda: self.facts, self.metrics_token),
            event_source="/invigilator/main",
            console=self.console,
        )

    def client(self) -> httpx.AsyncClient:
        transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
        return httpx.AsyncClient(transport=transport, base_url="http://localhost")

    def call(self, method: str, path: str, **options: Any) -> httpx.Response:
        async def call() -> httpx.Response:
            async with self.client() as client:
                return await client.request(method, path, **options)

        return asyncio.run(call())

    @contextmanager
    def looking_out(self) -> Iterator[None]:
        """What a process does beside its calls."""
        with running(partial(look_out, self.engine, (self.outcomes, self.followers), NEVER_S)):
            yield

    @contextmanager
    def served(self) -> Iterator[tuple[Server, tuple[str, int]]]:
        """Serve it to real clients. Yields the server, and its host and port."""
        server = Server(self.app, (self.outcomes, self.followers))
        with socket.create_server(("127.0.0.1", 0)) as listener:
            thread = threading.Thread(target=server.run, args=([listener],))
            thread.start()
            try:
                yield server, listener.getsockname()
            finally:
                server.stop()
                thread.join()

    def get(self, path: str, headers: Mapping[str, str] | None = None, **query: object) -> httpx.Response:
        asked = {name: str(value) for name, value in query.items()}
        return self.call("GET", path, params=asked, headers=headers)


def connections(record: Record) -> int:
    """How many sessions the test's database has."""
    with record.engine.connect() as connection:
        count = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
        return int(connection.scalar(text(count)) or 0)


@pytest.fixture
def record(engine: Engine) -> Record:
    """A course with two exams, and a learner."""
    record = Record(engine)
    record.handle(
        c.received(c.course(), "course"),
        c.received(c.exam("A"), "exam-A"),
        c.received(c.exam("B"), "exam-B"),
        c.received(c.learner(), "learner"),
    )
    return record


@pytest.fixture
def unasked(database_url: str) -> Iterator[Engine]:
    """An engine for a reader: it does not ask whether its connections live."""
    engine = make_engine(database_url, application_name="reads", pre_ping=False, autocommit=True)
    yield engine
    engine.dispose()


@pytest.fixture
def api(record: Record, unasked: Engine) -> Api:
    """The API, where no file of tokens is configured."""
    reader = Reader(unasked)
    return Api(record.engine, reader, Sink(record), Outcomes(reader), Followers(reader))


@pytest.fixture
def kept(api: Api) -> None:
    """A log that is kept for the API, and begins now."""
    with api.engine.begin() as connection:
        subscribers.store(connection, {"api": {}}, ["api"])
