"""PostgreSQL and the broker of a chaos run: killed, paused and started again, on the same data and port."""

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal, Protocol

import psutil
from redis import Redis

from invigilator.local import postgres, valkey
from invigilator.local.server import Server, is_free
from tests import engines
from tests.rabbit import restartable_rabbitmq

PORT_TIMEOUT_S = 30

Broker = Literal["redis", "rabbitmq"]


class Engine(Protocol):
    """What faults do to an engine."""

    url: str

    def start(self) -> None:
        """Start it again, and wait until it answers."""
        ...

    def end(self, how: signal.Signals) -> None:
        """Send a signal that ends it, and wait."""
        ...

    def pause(self) -> None:
        """SIGSTOP, all of its processes."""
        ...

    def resume(self) -> None:
        """SIGCONT."""
        ...


class Embedded:
    """An embedded engine, running.

    Parameters:
        start: starts it on its folder.
        started: is told the URL after each start.
    """

    def __init__(
        self, start: Callable[[], Server], started: Callable[[str], None] = lambda _url: None
    ) -> None:
        self._start = start
        self._started = started
        self._server = start()
        self.url = self._server.url
        started(self.url)

    def start(self) -> None:
        # Otherwise it would choose another port, and nobody would find it.
        deadline = time.monotonic() + PORT_TIMEOUT_S
        while not is_free(self._server.port) and time.monotonic() < deadline:
            time.sleep(0.05)
        self._server = self._start()
        assert self._server.url == self.url, "the engine came back at another address"
        self._started(self.url)

    def end(self, how: signal.Signals) -> None:
        engines.end(self._server, how)

    def pause(self) -> None:
        self._signal_all(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal_all(signal.SIGCONT)

    def _signal_all(self, number: signal.Signals) -> None:
        parent = psutil.Process(self._server.process.pid)
        for process in (parent, *parent.children(recursive=True)):
            with suppress(psutil.NoSuchProcess):
                process.send_signal(number)


@contextmanager
def running_database(folder: Path) -> Iterator[Engine]:
    """PostgreSQL, durable, because it will be killed."""
    with engines.starter(lambda folder, watch: postgres.start(folder, watch=watch)) as start:
        yield Embedded(lambda: start(folder))


@contextmanager
def running_broker(broker: Broker, folder: Path) -> Iterator[Engine]:
    """Valkey or RabbitMQ, such that what it has taken survives kill -9."""
    if broker == "rabbitmq":
        with restartable_rabbitmq() as rabbit:
            yield rabbit
    else:
        with engines.starter(lambda folder, watch: valkey.start(folder, watch=watch)) as start:
            yield Embedded(lambda: start(folder), _write_before_answering)


def _write_before_answering(url: str) -> None:
    # The default, everysec, may lose a second of commands with the server; that loss is the broker's own.
    with Redis.from_url(url) as client:
        client.config_set("appendfsync", "always")
