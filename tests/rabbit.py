"""A RabbitMQ for tests, from the system's package: on free ports, in a temporary folder, with its own epmd."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kombu import Connection
from kombu.exceptions import OperationalError

from invigilator.local.guard import Guard
from invigilator.local.server import HOST, free_port
from tests.engines import engine_folder, unavailable

PROGRAM = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
EPMD = "epmd"
START_TIMEOUT_S = 90


class Rabbit:
    """A RabbitMQ that may be killed, paused and started again, always on the same data and the same ports.

    Parameters:
        folder: keeps everything; empty at first.
        guard: ends it when the tests are killed.
        config: more lines for its rabbitmq.conf.
    """

    def __init__(self, folder: Path, guard: Guard, config: str = "") -> None:
        self._folder = folder
        self._guard = guard
        port, self._environment = _configure(folder, config)
        self.url = f"amqp://guest:guest@127.0.0.1:{port}//"
        self._epmd = self._launch([EPMD, "-port", self._environment["ERL_EPMD_PORT"]])
        self._server: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it answers. Skips on a laptop where it does not, fails in CI."""
        self._server = self._launch([str(PROGRAM)])
        _wait_until_up(self.url, self._server, self._folder / "output")

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
        self._epmd.wait()

    @property
    def _running(self) -> "subprocess.Popen[bytes]":
        assert self._server is not None, "not started"
        return self._server

    def _signal(self, number: signal.Signals) -> None:
        os.killpg(self._running.pid, number)

    def _launch(self, command: list[str]) -> "subprocess.Popen[bytes]":
        with (self._folder / "output").open("ab") as output:
            process = subprocess.Popen(
                command,
                env=self._environment,
                cwd=self._folder,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self._guard.watch_group(process.pid)
        return process


@contextmanager
def restartable_rabbitmq(config: str = "") -> Iterator[Rabbit]:
    """A throw-away RabbitMQ, running. Skips on a laptop without one, fails in CI."""
    if not PROGRAM.exists():
        unavailable("RabbitMQ is not installed: apt-get install rabbitmq-server")
    with engine_folder() as folder, Guard() as guard:
        rabbit = Rabbit(folder, guard, config)
        try:
            rabbit.start()
            yield rabbit
        finally:
            guard.__exit__(None, None, None)
            rabbit.wait()


@contextmanager
def running_rabbitmq(config: str = "") -> Iterator[str]:
    """The URL of a throw-away RabbitMQ. Skips on a laptop without one, fails in CI."""
    with restartable_rabbitmq(config) as rabbit:
        yield rabbit.url


def _configure(folder: Path, config: str) -> tuple[int, dict[str, str]]:
    port, distribution, epmd = free_port(), free_port(), free_port()
    if config:
        (folder / "rabbitmq.conf").write_text(f"{config}\n")
    (folder / "plugins").write_text("[].\n")
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "ERL_EPMD_PORT": str(epmd),
        "ERL_EPMD_ADDRESS": "127.0.0.1",
        "RABBITMQ_NODENAME": f"test{port}@localhost",
        "RABBITMQ_DIST_PORT": str(distribution),
        "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "plugins"),
        "RABBITMQ_MNESIA_BASE": str(folder / "data"),
        "RABBITMQ_LOG_BASE": str(folder / "log"),
        "RABBITMQ_CONF_ENV_FILE": "/dev/null",
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": " ".join(
            (
                # Without a file, no schema of files is compiled, which is a fifth of the start's CPU time.
                f'-rabbit tcp_listeners [{{"{HOST}",{port}}}]',
                # How often it looks for consumers beyond their `consumer_timeout`, in ms; no line for the file.
                "-rabbit channel_tick_interval 500",
                # Idle schedulers sleep: by default they spin.
                "+sbwt none +sbwtdcpu none",
            )
        ),
    }
    return port, environment


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
