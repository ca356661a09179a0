"""Fixtures of the commands stage."""

import pytest
from sqlalchemy import Engine

from db.prepared import PREPARES


@pytest.fixture
def engine(engine: Engine) -> Engine:
    """With prepared statements, as the commands process has it."""
    return engine.execution_options(**{PREPARES: True})
