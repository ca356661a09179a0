"""What the embedded engines share: a running server, its secret, its port, its log."""

import os
import secrets
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from invigilator.local.liveness import wait_for_end
from invigilator.local.private_files import write_private
from worker.errors import ConfigurationError

HOST = "127.0.0.1"
START_TIMEOUT_S = 60.0  # recovery after a crash replays a log before the engine answers
STOP_TIMEOUT_S = 20.0
ATTEMPTS = 3  # another program may take the port between our look and the engine's bind
LOG_LIMIT_BYTES = 10_000_000

# Engines need nothing of our environment, which holds secrets. macOS's PostgreSQL needs LC_ALL.
ENVIRONMENT = {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}


@dataclass(frozen=True, slots=True)
class Server:
    """A running engine. `url` holds the password, so it stays out of `repr`."""

    name: str
    port: int
    url: str = field(repr=False)
    process: subprocess.Popen[bytes] = field(repr=False)
    stop_signal: signal.Signals

    def is_running(self) -> bool:
        return self.process.poll() is None

    def stop(self, timeout_s: float = STOP_TIMEOUT_S) -> None:
        """Ask the engine to end, wait `timeout_s` seconds, then kill it. Stopping twice is harmless."""
        if self.is_running():
            self.process.send_signal(self.stop_signal)
        try:
            self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


Watch = Callable[[Server], None]


def unwatched(_server: Server) -> None:
    """Nobody needs to know as soon as the engine's process exists."""


def launch(command: Sequence[str], folder: Path, log: Path) -> subprocess.Popen[bytes]:
    """Start an engine in a session of its own, so that Ctrl-C in the terminal is ours to handle."""
    if log.exists() and log.stat().st_size > LOG_LIMIT_BYTES:
        log.replace(log.with_suffix(".old.log"))
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    with os.fdopen(descriptor, "ab") as output:
        return subprocess.Popen(
            command,
            cwd=folder,
            env=ENVIRONMENT,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def wait_until(ready: Callable[[], bool], server: Server, log: Path) -> None:
    """Wait until `ready()`.

    Raises:
        ConfigurationError: the engine ended, or did not answer in time; with the last line of its log.
    """
    deadline = time.monotonic() + START_TIMEOUT_S
    while server.is_running() and time.monotonic() < deadline:
        if ready():
            return
        time.sleep(0.05)
    server.stop()
    raise ConfigurationError(f"{server.name} did not start: {last_words(log)} (log: {log})")


def last_words(log: Path) -> str:
    """The last line of an engine's log that names a fault, else the last line."""
    lines = log.read_text(errors="replace").splitlines()[-50:]
    faults = [line for line in lines if "FATAL" in line or "Fatal" in line or "PANIC" in line]
    return (faults or lines or ["it wrote nothing"])[-1].strip()


def secret(file: Path) -> str:
    """The password kept in `file` (mode 0600), made at first use."""
    if not file.exists():
        write_private(file, secrets.token_urlsafe(24))
    return file.read_text().strip()


def choose_port(file: Path) -> int:
    """The loopback port remembered in `file` if it is free, else any free one, remembered from now on."""
    remembered = int(file.read_text()) if file.exists() else 0
    port = remembered if remembered and is_free(remembered) else free_port()
    write_private(file, str(port))
    return port


def is_free(port: int) -> bool:
    """Whether nobody listens on the loopback port."""
    with socket.socket() as probe:
        # As servers do: connections of a former server that linger in TIME_WAIT are no obstacle.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True


def free_port() -> int:
    """A loopback port on which nobody listens now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def start_on_free_port(start: Callable[[int], Server], port_file: Path) -> Server:
    """Call `start(port)`, and again with another port when somebody else took the first one meanwhile."""
    for _ in range(ATTEMPTS - 1):
        port = choose_port(port_file)
        try:
            return start(port)
        except ConfigurationError:
            if is_free(port):
                raise
    return start(choose_port(port_file))


def kill_leftovers(program: str, argument: str) -> None:
    """Kill engines that outlived their `up`: named `program` and started with `argument`, a path of ours.

    The name and the argument tell them from an unrelated process that inherited a recorded pid.
    Killing is safe: both engines recover what they acknowledged, as after a power cut.
    """
    for process in psutil.process_iter(["name", "cmdline"]):
        if process.info["name"] == program and argument in (process.info["cmdline"] or ()):
            process.kill()
            wait_for_end(process, STOP_TIMEOUT_S)
