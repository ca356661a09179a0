"""A MariaDB for tests, from the system's package. Only a socket in a temporary folder leads to it."""

import getpass
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pymysql

from invigilator.local import server
from invigilator.local.server import Server, Watch
from tests import engines
from worker.errors import ConfigurationError

DATABASE = "lms"
USER = "root"
PROGRAMS = f"/usr/sbin:{os.defpath}"
NOT_DURABLE = ("--innodb-flush-method=nosync", "--innodb-log-file-size=4M")


@contextmanager
def running_mariadb(folder: Path) -> Iterator[None]:
    """A throw-away MariaDB with an empty database. Skips on a laptop without one, fails in CI."""
    with engines.starter(_start) as start:
        start(folder)
        with pymysql.connect(unix_socket=str(socket_of(folder)), user=USER) as connection:
            connection.cursor().execute(f"CREATE DATABASE {DATABASE} CHARACTER SET utf8mb4")
        yield


def for_django(folder: Path) -> dict[str, object]:
    """Django's settings of the database."""
    return {
        "ENGINE": "django.db.backends.mysql",
        "NAME": DATABASE,
        "HOST": str(socket_of(folder)),
        "USER": USER,
    }


def socket_of(folder: Path) -> Path:
    """Where the MariaDB of a folder listens."""
    return folder / "socket"


def _start(folder: Path, watch: Watch) -> Server:
    common = ["--no-defaults", f"--datadir={folder / 'data'}", f"--user={getpass.getuser()}", *NOT_DURABLE]
    install = [_program("mariadb-install-db"), *common, "--skip-test-db"]
    subprocess.run(
        [*install, "--auth-root-authentication-method=normal"], cwd=folder, check=True, capture_output=True
    )
    socket_file, log = socket_of(folder), folder / "log"
    command = [_program("mariadbd"), *common, "--skip-networking", f"--socket={socket_file}"]
    process = server.launch([*command, f"--pid-file={folder / 'pid'}"], folder, log)
    running = Server("MariaDB", 0, str(socket_file), process, signal.SIGTERM)
    watch(running)
    server.wait_until(lambda: _answers(socket_file), running, log)
    return running


def _program(name: str) -> str:
    program = shutil.which(name, path=PROGRAMS)
    if program is None:
        raise ConfigurationError(
            "MariaDB is not installed: apt-get install mariadb-server-core mariadb-client-core"
        )
    return program


def _answers(socket_file: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(socket_file)) == 0
