"""Reads the setting `INVIGILATOR`."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from ..publisher import Publisher

REQUIRED = ("BROKER_URL", "SOURCE")
OPTIONAL = ("SHARDS", "SIGNING_KEY")


@dataclass(frozen=True, slots=True)
class Config:
    """Where commands go, and in whose name. The fields are parameters of `Publisher`."""

    broker_url: str = field(repr=False)
    source: str
    shards: int | None = None
    signing_key: str | None = field(default=None, repr=False)


def read_config() -> Config:
    """Read `settings.INVIGILATOR`, such as `{"BROKER_URL": "redis://…", "SOURCE": "/lms/acme"}`.

    Raises:
        ImproperlyConfigured: it is missing, or has a key too few or too many.
    """
    given: Mapping[str, Any] = getattr(settings, "INVIGILATOR", {})
    if missing := [key for key in REQUIRED if not given.get(key)]:
        raise ImproperlyConfigured(f"set {' and '.join(missing)} in INVIGILATOR")
    if unknown := [key for key in given if key not in REQUIRED + OPTIONAL]:
        raise ImproperlyConfigured(
            f"INVIGILATOR has an unknown key {unknown[0]}; known are {', '.join(REQUIRED + OPTIONAL)}"
        )
    return Config(**{key.lower(): value for key, value in given.items()})


@lru_cache
def publisher_of(config: Config) -> Publisher:
    """Return the process's publisher. It connects at its first publish.

    Raises:
        ImproperlyConfigured: a value is wrong.
    """
    try:
        return Publisher(
            config.broker_url, source=config.source, shards=config.shards, signing_key=config.signing_key
        )
    except ValueError as error:
        raise ImproperlyConfigured(f"INVIGILATOR: {error}") from None
