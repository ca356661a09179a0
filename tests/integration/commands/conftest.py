"""Fixtures for `worker.commands`."""

from collections.abc import Iterator

import pytest
from sqlalchemy import Engine

from db.connect import make_engine
from worker.processes import session_settings
from worker.settings import Settings


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    """As the commands process has it."""
    settings = session_settings(Settings())
    engine = make_engine(database_url, application_name="tests", session_settings=settings, pre_ping=False)
    yield engine
    engine.dispose()
