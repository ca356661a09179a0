"""Finds the engines that `invigilator up` runs on the data folder: it announces them in a private file."""

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
    """Where the embedded engines listen; None for one that is not embedded."""

    database_url: str | None = field(default=None, repr=False)
    broker_url: str | None = field(default=None, repr=False)


def find_engines(data_dir: Path) -> Engines | None:
    """The engines of the system that runs on `data_dir`, or None when none does.

    What a killed system left behind does not count: nobody holds its lock any more.

    Raises:
        ConfigurationError: the folder is another user's.
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
    """The settings with the URLs of running embedded engines filled in where none are configured.

    Parameters:
        database, broker: which of the two the caller cannot do without.

    Raises:
        ConfigurationError: one that is needed is neither configured nor running.
    """
    if settings.database_url is None or settings.broker_url is None:
        settings = _filled(settings, find_engines(settings.data_dir) or Engines())
    if database and settings.database_url is None:
        raise _missing("database", "DATABASE_URL", settings.data_dir)
    if broker and settings.broker_url is None:
        raise _missing("broker", "BROKER_URL", settings.data_dir)
    return settings


def has_own_engines(settings: Settings) -> bool:
    """Whether database and broker are one's own: neither is an engine that runs on the data folder."""
    try:
        engines = find_engines(settings.data_dir) or Engines()
    except ConfigurationError:  # a folder of somebody else, and so are its engines
        engines = Engines()
    pairs = ((settings.database_url, engines.database_url), (settings.broker_url, engines.broker_url))
    return all(
        configured is not None and _server(configured.get_secret_value()) != _server(embedded)
        for configured, embedded in pairs
    )


def _server(url: str | None) -> str | None:
    """Where a URL leads: host and port, and the password, which is random for an embedded engine."""
    # Not urlsplit(), which takes brackets in a password for an address, and quotes them.
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
