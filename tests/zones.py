"""A machine that has no time zones."""

import zoneinfo
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def no_time_zones() -> Iterator[None]:
    """While in here, no time zone is found. `tzdata` of PyPI is not installed in `.venv`."""
    zoneinfo.reset_tzpath(to=())
    zoneinfo.ZoneInfo.clear_cache()
    try:
        yield
    finally:
        zoneinfo.reset_tzpath()
