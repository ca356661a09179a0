"""Finds the embedded engines of a running `invigilator up`.

`invigilator up` writes the URLs of its engines to a private file in the data folder (`engines.json`). The other
processes read that file when no database or broker is configured.
"""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from pydantic import SecretStr

from worker import folder_lock
from worker.errors import ConfigurationError
from worker.settings import PREFIX, Settings

FILE = "engines.json"


@dataclass(frozen=True, slots=True)
class Engines:
    """The URLs of the embedded engines. A URL is None when that engine is not embedded."""

    database_url: str | None = field(default=None, repr=False)
    broker_url: str | None = field(default=None, repr=False)


def find_engines(data_dir: Path) -> Engines | None:
    """Return the engines of the system that runs on `data_dir`, or None when no system runs there.

    The file of a killed system is ignored, because nobody holds the folder's lock any more.

    Raises:
        ConfigurationError: the folder belongs to another user, or cannot be used.
    """
    try:
        if not folder_lock.is_held(data_dir):
            return None
        return Engines(**json.loads((data_dir / FILE).read_text()))
    except FileNotFoundError:  # starting or stopping
        return None
    except PermissionError as error:
        raise ConfigurationError(f"the data folder {data_dir} belongs to another user") from error


def resolve(settings: Settings, *, database: bool = True, broker: bool = True) -> Settings:
    """Fill in the URLs of running embedded engines where the settings have none.

    Parameters:
        settings: the settings as they were read.
        database: whether the caller needs a database.
        broker: whether the caller needs a broker.

    Returns:
        the settings, with every URL that could be found.

    Raises:
        ConfigurationError: a needed engine is neither configured nor running.
    """
    if settings.database_url is None or settings.broker_url is None:
        settings = _filled(settings, find_engines(settings.data_dir) or Engines())
    if database and settings.database_url is None:
        raise _missing("database", "DATABASE_URL", settings.data_dir)
    if broker and settings.broker_url is None:
        raise _missing("broker", "BROKER_URL", settings.data_dir)
    return settings


def has_own_engines(settings: Settings) -> bool:
    """Return whether database and broker are both configured, and neither is an embedded engine."""
    try:
        engines = find_engines(settings.data_dir) or Engines()
    except ConfigurationError:  # the folder belongs to another user, so its engines are not ours
        engines = Engines()
    pairs = ((settings.database_url, engines.database_url), (settings.broker_url, engines.broker_url))
    return all(
        configured is not None and _server(configured.get_secret_value()) != _server(embedded)
        for configured, embedded in pairs
    )


def _server(url: str | None) -> str | None:
    """Return the part of a URL that identifies a server: user, password, host and port.

    The password is random for an embedded engine, so two servers that use the same port in turn differ.
    """
    # urlsplit() takes brackets in a password for an IPv6 address and quotes them in its error.
    return None if url is None else url.partition("://")[2].partition("/")[0]


def _filled(settings: Settings, engines: Engines) -> Settings:
    found = {
        name: SecretStr(url)
        for name, url in asdict(engines).items()
        if url is not None and getattr(settings, name) is None
    }
    return settings.model_copy(update=found)


def _missing(what: str, variable: str, data_dir: Path) -> ConfigurationError:
    return ConfigurationError(
        f"no {what} configured: set {PREFIX}{variable}, or run `invigilator up` in another terminal "
        f"(data folder {data_dir.absolute()})"
    )
