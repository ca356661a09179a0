"""A RabbitMQ for tests, from the system's package: on free ports, in a temporary folder, with its own epmd.

It is one node, or a cluster of three.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from kombu import Connection
from kombu.exceptions import OperationalError

from invigilator.local.guard import Guard
from invigilator.local.server import HOST, free_port
from tests.engines import engine_folder, unavailable

PROGRAMS = Path("/usr/lib/rabbitmq/bin")
PROGRAM = PROGRAMS / "rabbitmq-server"
PLUGIN = "rabbitmq_"
NO_PLUGIN = "rabbitmq_prelaunch-"
CONTROL = PROGRAMS / "rabbitmqctl"
EPMD = "epmd"
START_TIMEOUT_S = 90
ELECTION_S = 10
"""A queue that has no leader for longer gets none any more."""
NODES = 3
MISSING = "RabbitMQ is not installed: apt-get install rabbitmq-server"


class Epmd:
    """The port mapper of the nodes of one cluster, which share a cookie, too.

    Parameters:
        folder: keeps the cookie, and its output.
        guard: ends it when the tests are killed.
    """

    def __init__(self, folder: Path, guard: Guard) -> None:
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "ERL_EPMD_PORT": str(free_port()),
            "ERL_EPMD_ADDRESS": HOST,
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
        }
        command = [EPMD, "-port", self.environment["ERL_EPMD_PORT"]]
        self.process = _launch(command, self.environment, folder, guard)


class Rabbit:
    """A RabbitMQ that may be killed, paused and started again, always on the same data and the same ports.

    Parameters:
        folder: keeps everything; empty at first.
        guard: ends it when the tests are killed.
        config: more lines for its rabbitmq.conf.
        epmd: of the cluster that it is a node of; None for one of its own.
        port: where it listens; None for a free one.
        peers: the ports of all nodes of its cluster.
    """

    def __init__(
        self,
        folder: Path,
        guard: Guard,
        config: str = "",
        epmd: Epmd | None = None,
        port: int | None = None,
        peers: Sequence[int] = (),
    ) -> None:
        self._folder = folder
        self._guard = guard
        self._epmd = epmd or Epmd(folder, guard)
        port = port or free_port()
        self.name = _node_name(port)
        self._environment = {**self._epmd.environment, **_configure(folder, config, port, peers)}
        self.url = f"amqp://guest:guest@127.0.0.1:{port}//"
        self._server: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it answers. Skips on a laptop where it does not, fails in CI."""
        self.launch()
        self.wait_until_up()

    def launch(self) -> None:
        """Start it, and do not wait."""
        program = _without_plugins(self._folder / "home")
        self._server = _launch([str(program)], self._environment, self._folder, self._guard)

    def wait_until_up(self) -> None:
        """Wait until it answers."""
        _wait_until_up(self.url, self._running, self._folder / "output")

    @property
    def is_running(self) -> bool:
        return self._server is not None and self._server.poll() is None

    def control(self, *arguments: str) -> str:
        """Run `rabbitmqctl` on this node. Returns what it prints."""
        command = [str(CONTROL), "--node", self.name, "--quiet", *arguments]
        ran = subprocess.run(
            command, env=self._environment, cwd=self._folder, capture_output=True, text=True, check=True
        )
        return ran.stdout

    def delete_lost_queues(self) -> None:
        """Delete the quorum queues that this node, the only one, does not lead, as docs/operate.md says."""
        seen = self._without_leader()
        time.sleep(ELECTION_S)
        with Connection(self.url) as connection:
            for queue in seen & self._without_leader():
                connection.default_channel.queue_delete(queue)

    def _without_leader(self) -> set[str]:
        told = self.control("eval", "[Queue || {Queue, State} <- ets:tab2list(ra_state), State =/= leader].")
        return set(re.findall(r"'%2F_([^']+)'", told))

    def configure(self, line: str) -> None:
        """Add a line to its rabbitmq.conf, which counts from the next start on."""
        with (self._folder / "rabbitmq.conf").open("a") as config:
            config.write(f"{line}\n")

    def end(self, how: signal.Signals) -> None:
        """Send a signal that ends it to the whole group, and wait."""
        self._signal(how)
        self._running.wait()

    def pause(self) -> None:
        """SIGSTOP."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        self._signal(signal.SIGCONT)

    def wait(self) -> None:
        """Wait until everything that was started has ended, by the guard's hand."""
        if self._server is not None:
            self._server.wait()
        self._epmd.process.wait()

    @property
    def _running(self) -> "subprocess.Popen[bytes]":
        assert self._server is not None, "not started"
        return self._server

    def _signal(self, number: signal.Signals) -> None:
        os.killpg(self._running.pid, number)


class Cluster:
    """Three nodes that are one RabbitMQ. `url` names all of them.

    Parameters:
        folder: keeps everything; empty at first.
        guard: ends them when the tests are killed.
    """

    def __init__(self, folder: Path, guard: Guard) -> None:
        epmd = Epmd(folder, guard)
        ports = [free_port() for _ in range(NODES)]
        self.nodes: list[Rabbit] = []
        for port in ports:
            own = folder / str(port)
            own.mkdir()
            self.nodes.append(Rabbit(own, guard, epmd=epmd, port=port, peers=ports))
        self.url = ";".join(node.url for node in self.nodes)

    def start(self) -> Self:
        """Start all nodes, and wait until they answer."""
        first, *others = self.nodes
        first.start()  # which forms the cluster that the others join
        for node in others:
            node.launch()
        for node in others:
            node.wait_until_up()
        return self

    def leader(self, queue: str) -> Rabbit:
        """The node that leads a quorum queue."""
        asked = next(node for node in self.nodes if node.is_running)
        told = json.loads(asked.control("list_queues", "--formatter", "json", "name", "leader"))
        [leader] = [one["leader"] for one in told if one["name"] == queue]
        return next(node for node in self.nodes if node.name == leader)

    def wait(self) -> None:
        """Wait until everything that was started has ended, by the guard's hand."""
        for node in self.nodes:
            node.wait()


def _without_plugins(home: Path) -> Path:
    """Return the program of an installation that is the system's without its plugins.

    None is enabled. But Erlang would look for each of its modules in all of them: a fifth of the start's CPU time.
    """
    if not home.exists():
        scripts = PROGRAM.resolve().parent
        shutil.copytree(scripts, home / "sbin")
        (home / "escript").symlink_to(scripts.with_name("escript"))
        (home / "plugins").mkdir()
        for one in scripts.with_name("plugins").iterdir():
            if one.name.startswith(NO_PLUGIN) or not one.name.startswith(PLUGIN):
                (home / "plugins" / one.name).symlink_to(one)
    return home / "sbin" / PROGRAM.name


def _launch(
    command: list[str], environment: dict[str, str], folder: Path, guard: Guard
) -> "subprocess.Popen[bytes]":
    with (folder / "output").open("ab") as output:
        process = subprocess.Popen(
            command, env=environment, cwd=folder, stdout=output, stderr=output, start_new_session=True
        )
    guard.watch_group(process.pid)
    return process


@contextmanager
def restartable_rabbitmq(config: str = "") -> Iterator[Rabbit]:
    """A throw-away RabbitMQ, running. Skips on a laptop without one, fails in CI."""
    if not PROGRAM.exists():
        unavailable(MISSING)
    with engine_folder() as folder, Guard() as guard:
        rabbit = Rabbit(folder, guard, config)
        try:
            rabbit.start()
            yield rabbit
        finally:
            guard.__exit__(None, None, None)
            rabbit.wait()


@contextmanager
def running_cluster() -> Iterator[Cluster]:
    """A throw-away cluster, running. Skips on a laptop without RabbitMQ, fails in CI."""
    if not PROGRAM.exists():
        unavailable(MISSING)
    with engine_folder() as folder, Guard() as guard:
        cluster = Cluster(folder, guard)
        try:
            yield cluster.start()
        finally:
            guard.__exit__(None, None, None)
            cluster.wait()


@contextmanager
def running_rabbitmq(config: str = "") -> Iterator[str]:
    """The URL of a throw-away RabbitMQ. Skips on a laptop without one, fails in CI."""
    with restartable_rabbitmq(config) as rabbit:
        yield rabbit.url


def _node_name(port: int) -> str:
    return f"test{port}@localhost"


def _configure(folder: Path, config: str, port: int, peers: Sequence[int]) -> dict[str, str]:
    if config:
        (folder / "rabbitmq.conf").write_text(f"{config}\n")
    (folder / "plugins").write_text("[].\n")
    names = ",".join(f"'{_node_name(peer)}'" for peer in peers)
    arguments = [
        # Without a file, no schema of files is compiled, which is a fifth of the start's CPU time.
        f'-rabbit tcp_listeners [{{"{HOST}",{port}}}]',
        # How often it looks for consumers beyond their `consumer_timeout`, in ms; no line for the file.
        "-rabbit channel_tick_interval 500",
        # Idle schedulers sleep: by default they spin.
        "+sbwt none +sbwtdcpu none",
    ]
    if peers:
        arguments.append(f"-rabbit cluster_nodes {{[{names}],disc}}")
    return {
        "RABBITMQ_NODENAME": _node_name(port),
        "RABBITMQ_DIST_PORT": str(free_port()),
        "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "plugins"),
        "RABBITMQ_MNESIA_BASE": str(folder / "data"),
        "RABBITMQ_LOG_BASE": str(folder / "log"),
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": " ".join(arguments),
    }


def _wait_until_up(url: str, server: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline and server.poll() is None:
        try:
            with Connection(url, connect_timeout=1) as connection:
                connection.connect()
        except (OperationalError, OSError):
            time.sleep(0.2)
        else:
            return
    unavailable(f"RabbitMQ did not start: {log.read_text(errors='replace')[-500:]}")
