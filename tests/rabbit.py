"""A RabbitMQ for tests, from the system's package: on free ports, in a temporary folder, with its own epmd."""

import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kombu import Connection
from kombu.exceptions import OperationalError

from tests.engines import unavailable
from worker.embedded.server import free_port
from worker.system.guard import Guard

PROGRAM = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
EPMD = "epmd"
START_TIMEOUT_S = 90


@contextmanager
def running_rabbitmq() -> Iterator[str]:
    """The URL of a throw-away RabbitMQ. Skips on a laptop without one, fails in CI."""
    if not PROGRAM.exists():
        unavailable("RabbitMQ is not installed: apt-get install rabbitmq-server")
    with tempfile.TemporaryDirectory(prefix="invigilator-rabbit-") as folder, Guard() as guard:
        port, environment = _configure(Path(folder))
        epmd = _start([EPMD, "-port", environment["ERL_EPMD_PORT"]], environment, Path(folder))
        guard.watch_group(epmd.pid)
        server = _start([str(PROGRAM)], environment, Path(folder))
        guard.watch_group(server.pid)
        try:
            url = f"amqp://guest:guest@127.0.0.1:{port}//"
            _wait_until_up(url, server, Path(folder) / "output")
            yield url
        finally:
            guard.__exit__(None, None, None)
            server.wait()
            epmd.wait()


def _configure(folder: Path) -> tuple[int, dict[str, str]]:
    port, distribution, epmd = free_port(), free_port(), free_port()
    (folder / "rabbitmq.conf").write_text(f"listeners.tcp.1 = 127.0.0.1:{port}\n")
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
    }
    return port, environment


def _start(command: list[str], environment: dict[str, str], folder: Path) -> "subprocess.Popen[bytes]":
    with (folder / "output").open("ab") as output:
        return subprocess.Popen(
            command, env=environment, cwd=folder, stdout=output, stderr=output, start_new_session=True
        )


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
