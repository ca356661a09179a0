"""PostgreSQL and the broker of a storm, one server each: killed, paused, started again on the same data."""

import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Protocol

import psutil
from redis import Redis

from invigilator.local import valkey
from invigilator.local.server import Server, is_free
from tests import engines
from tests.rabbit import restartable_rabbitmq

PORT_TIMEOUT_S = 30

Broker = Literal["redis", "rabbitmq"]

Strike = Callable[[float], None]
"""Carries out a fault for so many seconds, and ends it."""


@dataclass(frozen=True, slots=True)
class Target:
    """An engine that can be struck: one server, or a cluster.

    Parameters:
        url: what our processes get.
        strikes: by the names of the plan.
        one: returns the URL of one server, which can be written to now.
        mend: does what an operator has to do when our processes say that the engine does not serve them.
    """

    url: str
    strikes: Mapping[str, Strike]
    one: Callable[[], str]
    mend: Callable[[], None] = lambda: None


class Engine(Protocol):
    """What is done to one server."""

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
        signal_all(self._server, signal.SIGSTOP)

    def resume(self) -> None:
        signal_all(self._server, signal.SIGCONT)


def signal_all(server: Server, number: signal.Signals) -> None:
    """Send a signal to a server and all of its processes."""
    parent = psutil.Process(server.process.pid)
    for process in (parent, *parent.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):
            process.send_signal(number)


@contextmanager
def running_database(folder: Path) -> Iterator[Target]:
    """PostgreSQL, durable, because it will be killed."""
    with engines.starter(lambda folder, watch: engines.start_postgres(folder, watch=watch)) as start:
        yield _target(Embedded(lambda: start(folder)), {"shut_down_immediately": signal.SIGQUIT})


@contextmanager
def running_broker(broker: Broker, folder: Path) -> Iterator[Target]:
    """Valkey or RabbitMQ, such that what it has taken survives kill -9."""
    if broker == "rabbitmq":
        with restartable_rabbitmq() as rabbit:
            yield replace(_target(rabbit), mend=rabbit.delete_lost_queues)
    else:
        with engines.starter(lambda folder, watch: valkey.start(folder, watch=watch)) as start:
            yield _target(Embedded(lambda: start(folder), _write_before_answering))


def _target(engine: Engine, endings: Mapping[str, signal.Signals] = {}) -> Target:
    strikes = {what: ending(engine, how) for what, how in {"kill": signal.SIGKILL, **endings}.items()}
    return Target(engine.url, strikes | {"pause": pausing(engine)}, lambda: engine.url)


def ending(engine: Engine, how: signal.Signals) -> Strike:
    """End it with a signal, and start it again after a while."""

    def strike(for_s: float) -> None:
        engine.end(how)
        time.sleep(for_s)
        engine.start()

    return strike


def pausing(engine: Engine) -> Strike:
    """Let it stand still for a while."""

    def strike(for_s: float) -> None:
        engine.pause()
        time.sleep(for_s)
        engine.resume()

    return strike


def _write_before_answering(url: str) -> None:
    # The default, everysec, may lose a second of commands with the server; that loss is the broker's own.
    with Redis.from_url(url) as client:
        client.config_set("appendfsync", "always")
