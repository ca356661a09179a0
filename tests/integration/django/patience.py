"""Waits for what another thread or process does."""

import time
from collections.abc import Callable

PATIENCE_S = 60  # before a test gives up; never how long anything should take


def wait_until(condition: Callable[[], bool]) -> None:
    """Return when the condition holds."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.01)
