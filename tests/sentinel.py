"""Redis Sentinel for tests: a primary, its replicas and three Sentinels, all of them Valkeys."""

import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from redis import Redis, RedisError

from invigilator.local import valkey
from invigilator.local.guard import Guard
from invigilator.local.server import free_port
from tests.engines import unavailable
from worker.errors import ConfigurationError

NAME = "exams"
PASSWORD = "of the servers @/?"
QUOTED = "of%20the%20servers%20%40%2F%3F"
SENTINEL_PASSWORD = "of-the-sentinels"
DATABASE = 3
DOWN_AFTER_MS = 1000
PATIENCE_S = 60


class Group:
    """Servers, of which one is the primary, and the three Sentinels that know which.

    Parameters:
        replicas: how many servers there are beside the primary.
        settings: more lines for the configuration of each.
    """

    def __init__(self, folder: Path, guard: Guard, replicas: int = 1, settings: Sequence[str] = ()) -> None:
        self._folder = folder
        self._guard = guard
        self._replicas = replicas
        self._settings = settings
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        first = free_port()
        self.start_server(first)
        for _ in range(replicas):
            self.start_server(free_port(), replica_of=first)
        self.sentinels = [free_port() for _ in range(3)]
        for port in self.sentinels:
            self._start_sentinel(port, first)
        _wait_until(self._is_ready, "the Sentinels to know everybody")

    @property
    def url(self) -> str:
        """The URL as a person writes it."""
        hosts = ",".join(f"127.0.0.1:{port}" for port in self.sentinels)
        return f"sentinel://:{QUOTED}@{hosts}/{DATABASE}?{self.parameters}"

    @property
    def parameters(self) -> str:
        """The parameters of the URL."""
        return f"master_name={NAME}&sentinel_password={SENTINEL_PASSWORD}"

    def start_server(self, port: int, replica_of: int | None = None) -> None:
        """Start a server, again on what it has."""
        lines = [
            f"port {port}",
            "appendonly yes",
            'save ""',
            f'requirepass "{PASSWORD}"',
            f'masterauth "{PASSWORD}"',
            "repl-diskless-sync-delay 0",
            f"replicaof 127.0.0.1 {replica_of}" if replica_of else "",
            *self._settings,
        ]
        self._start(port, lines, [])
        _wait_until(lambda: self._says("PING", port) in (True, b"PONG"), "a server to answer")

    def kill(self, port: int) -> None:
        """SIGKILL a server or a Sentinel."""
        self._processes[port].kill()
        self._processes.pop(port).wait()

    def freeze(self, port: int) -> None:
        """SIGSTOP a server."""
        self._processes[port].send_signal(signal.SIGSTOP)

    def thaw(self, port: int) -> None:
        """SIGCONT a server."""
        self._processes[port].send_signal(signal.SIGCONT)

    def primary(self) -> int:
        """The port of the primary, as the Sentinels tell it."""
        for port in self.sentinels:
            if port in self._processes:
                _, primary = self._ask(port, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", NAME)
                return int(primary)
        raise AssertionError("no Sentinel runs")

    def replica(self) -> int:
        """The port of the other server."""
        [port] = self.replicas()
        return port

    def replicas(self) -> set[int]:
        """The ports of the servers that run and are not the primary."""
        return self._processes.keys() - {*self.sentinels, self.primary()}

    def has_its_replicas(self) -> bool:
        """Whether every other server follows the primary."""
        told = self._says("INFO", self.primary())
        states = [told.get(f"slave{number}", {}) for number in range(self._replicas)] if told else [{}]
        return all(state.get("state") == "online" for state in states)

    def cut_replicas(self) -> set[int]:
        """Let no replica follow the primary, until they are mended. Returns their ports."""
        primary, replicas = self.primary(), self.replicas()
        self._let_in(replicas, "nobody's")
        with self.client(primary) as client:
            client.execute_command("CLIENT KILL TYPE replica")
        return replicas

    def follow(self, replica: int, address: tuple[str, int]) -> None:
        """Let a replica follow the primary by way of another address. After 8 s the Sentinels would mend that."""
        with self.client(replica) as client:
            client.replicaof(*address)

    def mend_replicas(self, ports: set[int]) -> None:
        """Let replicas follow again."""
        self._let_in(ports, PASSWORD)

    def _let_in(self, ports: set[int], password: str) -> None:
        for port in ports:
            with self.client(port) as client:
                client.config_set("masterauth", password)

    def wait_for_another_primary(self, than: int) -> int:
        """Wait until the Sentinels have made another server the primary. Returns its port."""
        _wait_until(lambda: self.primary() != than and self.role(self.primary()) == "master", "a failover")
        return self.primary()

    def fail_over(self) -> int:
        """Have the Sentinels change the primary, as an operator would. Returns the new one's port."""
        old = self.primary()
        self._ask(self.sentinels[0], "SENTINEL", "FAILOVER", NAME)
        new = self.wait_for_another_primary(old)
        _wait_until(lambda: self.role(old) == "slave", "the old primary to be a replica")
        return new

    def wait_for_replica(self) -> None:
        """Wait until the replica has all that the primary has."""
        primary = self.primary()
        _wait_until(lambda: self._says("INFO", primary)["connected_slaves"] >= 1, "the replica to connect")
        with self.client(primary) as client:
            assert client.wait(1, PATIENCE_S * 1000) >= 1

    def role(self, port: int) -> str:
        """`master` or `slave`; empty when it does not answer."""
        told = self._says("INFO", port)
        return str(told["role"]) if isinstance(told, dict) else ""

    def client(self, port: int) -> Redis:
        """A client for one server, whatever its role, on the database of the URL."""
        return Redis(port=port, password=PASSWORD, db=DATABASE, socket_timeout=5)

    def stop(self) -> None:
        """Kill everything."""
        for port in list(self._processes):
            self.kill(port)

    def _start_sentinel(self, port: int, primary: int) -> None:
        lines = _sentinel(port, "127.0.0.1", primary, PASSWORD, quorum=2)
        self._start(port, lines, ["--sentinel"])

    def _start(self, port: int, lines: list[str], arguments: list[str]) -> None:
        self._processes[port] = _launch(self._folder / str(port), self._guard, lines, arguments)

    def _is_ready(self) -> bool:
        return all(self._knows_everybody(port) for port in self.sentinels)

    def _knows_everybody(self, port: int) -> bool:
        try:
            told = self._ask(port, "SENTINEL", "MASTER", NAME)
        except RedisError:
            return False
        facts = told if isinstance(told, dict) else dict(zip(told[::2], told[1::2], strict=True))
        facts = {str(name): str(value) for name, value in facts.items()}
        known = (facts["num-other-sentinels"], facts["num-slaves"], facts["flags"])
        return known == ("2", str(self._replicas), "master")

    def _ask(self, port: int, *command: str) -> Any:
        with Redis(port=port, password=SENTINEL_PASSWORD, socket_timeout=5, decode_responses=True) as client:
            return client.execute_command(*command)

    def _says(self, command: str, port: int) -> Any:
        try:
            with self.client(port) as client:
                return client.execute_command(command)
        except RedisError:
            return None


@contextmanager
def running_group(replicas: int = 1, settings: Sequence[str] = ()) -> Iterator[Group]:
    """A throw-away group; see `Group`."""
    with tempfile.TemporaryDirectory(prefix="invigilator-sentinel-") as folder, Guard() as guard:
        group: Group | None = None
        try:
            group = Group(Path(folder), guard, replicas, settings)
            yield group
        finally:
            guard.__exit__(None, None, None)
            if group is not None:
                group.stop()


@contextmanager
def running_sentinel(host: str, port: int, password: str) -> Iterator[int]:
    """One Sentinel that knows one server, by name: its port."""
    own = free_port()
    lines = ["sentinel resolve-hostnames yes", "sentinel announce-hostnames yes"]
    lines += _sentinel(own, host, port, password, quorum=1)
    with tempfile.TemporaryDirectory(prefix="invigilator-sentinel-") as folder, Guard() as guard:
        process = _launch(Path(folder), guard, lines, ["--sentinel"])
        try:
            with Redis(port=own, password=SENTINEL_PASSWORD) as client:
                _wait_until(lambda: _is_up(client), "the Sentinel to find its server")
            yield own
        finally:
            process.kill()
            process.wait()


def _is_up(sentinel: Redis) -> bool:
    try:
        facts: Any = sentinel.sentinel_masters()
    except RedisError:
        return False
    return facts[NAME]["flags"] == "master" and int(facts[NAME]["last-ok-ping-reply"]) < DOWN_AFTER_MS


def _sentinel(port: int, host: str, primary: int, password: str, *, quorum: int) -> list[str]:
    return [
        f"port {port}",
        f'requirepass "{SENTINEL_PASSWORD}"',
        f'sentinel sentinel-pass "{SENTINEL_PASSWORD}"',
        f"sentinel monitor {NAME} {host} {primary} {quorum}",
        f'sentinel auth-pass {NAME} "{password}"',
        f"sentinel down-after-milliseconds {NAME} {DOWN_AFTER_MS}",
        f"sentinel failover-timeout {NAME} 6000",
    ]


def _launch(folder: Path, guard: Guard, lines: list[str], arguments: list[str]) -> "subprocess.Popen[bytes]":
    try:
        binary = str(valkey.binary())
    except ConfigurationError as error:
        unavailable(str(error))
    folder.mkdir(exist_ok=True)
    config = folder / "valkey.conf"
    if not config.exists():  # Sentinels and replicas rewrite theirs
        config.write_text("\n".join(["bind 127.0.0.1", f'dir "{folder}"', *lines]) + "\n")
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen(
            [binary, str(config), *arguments], stdout=log, stderr=log, start_new_session=True
        )
    guard.watch_group(process.pid)
    return process


def _wait_until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.05)
