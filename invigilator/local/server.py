"""Runs one embedded engine as a server process: launch, password, port, log, stop."""

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
PORTS = range(20_000, 32_000)
"""Below those that a system gives to outgoing connections. On one of these, a client that calls an engine that is
away may be connected to itself: it waits for an answer for ever, and keeps the port."""
START_TIMEOUT_S = (
    300.0  # after a crash an engine replays its log before it answers, on a busy machine for minutes
)
STOP_TIMEOUT_S = 20.0
ATTEMPTS = 3  # another program may take the port after we found it free
LOG_LIMIT_BYTES = 10_000_000

# Our environment holds secrets, so the engines do not get it. PostgreSQL on macOS needs LC_ALL.
ENVIRONMENT = {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}


@dataclass(frozen=True, slots=True)
class Server:
    """A running engine. `url` contains the password, so `repr` omits it."""

    name: str
    port: int
    url: str = field(repr=False)
    process: subprocess.Popen[bytes] = field(repr=False)
    stop_signal: signal.Signals

    def is_running(self) -> bool:
        return self.process.poll() is None

    def stop(self, timeout_s: float = STOP_TIMEOUT_S) -> None:
        """Send the stop signal, wait `timeout_s` seconds, then kill the engine. A second call does nothing."""
        if self.is_running():
            self.process.send_signal(self.stop_signal)
        try:
            self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


Watch = Callable[[Server], None]


def unwatched(_server: Server) -> None:
    """Do nothing: the default for `watch`."""


def launch(command: Sequence[str], folder: Path, log: Path) -> subprocess.Popen[bytes]:
    """Start an engine in a session of its own, so that Ctrl-C in the terminal does not reach it.

    Parameters:
        command: the program and its arguments.
        folder: the working folder.
        log: receives the engine's output. A log over `LOG_LIMIT_BYTES` is first renamed to `.old.log`.
    """
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
    """Wait until `ready()` returns True. If it does not in time, stop the engine.

    Raises:
        ConfigurationError: the engine ended, or was not ready within `START_TIMEOUT_S`. The message quotes its log.
    """
    deadline = time.monotonic() + START_TIMEOUT_S
    while server.is_running() and time.monotonic() < deadline:
        if ready():
            return
        time.sleep(0.05)
    server.stop()
    raise ConfigurationError(f"{server.name} did not start: {last_words(log)} (log: {log})")


def last_words(log: Path) -> str:
    """Return the last line of an engine's log that reports a fatal error, or else the last line."""
    lines = log.read_text(errors="replace").splitlines()[-50:]
    faults = [line for line in lines if "FATAL" in line or "Fatal" in line or "PANIC" in line]
    return (faults or lines or ["it wrote nothing"])[-1].strip()


def secret(file: Path) -> str:
    """Return the password in `file` (mode 0600). The first call creates it."""
    if not file.exists():
        write_private(file, secrets.token_urlsafe(24))
    return file.read_text().strip()


def choose_port(file: Path) -> int:
    """Return the port that `file` remembers if it is free, or else another free one, and remember it in `file`."""
    remembered = int(file.read_text()) if file.exists() else 0
    port = remembered if remembered and is_free(remembered) else free_port()
    write_private(file, str(port))
    return port


def is_free(port: int) -> bool:
    """Return whether nobody listens on the loopback port."""
    with socket.socket() as probe:
        # Servers set this option, too: connections of a former server in TIME_WAIT do not block the port.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True


def free_port() -> int:
    """Return a loopback port on which nobody listens at this moment."""
    while not is_free(port := secrets.choice(PORTS)):
        pass
    return port


def start_on_free_port(start: Callable[[int], Server], port_file: Path) -> Server:
    """Call `start(port)`, and again with another port when another program took the first one meanwhile.

    Raises:
        ConfigurationError: the engine does not start, although its port is free; or every port was taken.
    """
    for _ in range(ATTEMPTS - 1):
        port = choose_port(port_file)
        try:
            return start(port)
        except ConfigurationError:
            if is_free(port):
                raise
    return start(choose_port(port_file))


def kill_leftovers(program: str, argument: str) -> None:
    """Kill the engines that an earlier `up` left running.

    An engine is recognised by its name and by an argument, and not by a recorded pid, which may have been reused.
    Killing is safe, because both engines recover what they acknowledged, as after a power cut.

    Parameters:
        program: the name of the process.
        argument: an argument of its command line, which is a path of ours.
    """
    for process in psutil.process_iter(["name", "cmdline"]):
        if process.info["name"] == program and argument in (process.info["cmdline"] or ()):
            process.kill()
            wait_for_end(process, STOP_TIMEOUT_S)
