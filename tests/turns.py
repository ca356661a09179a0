"""One at a time: tests that need so much memory that several of them together would be too much for the machine."""

import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MUCH_MEMORY = Path(tempfile.gettempdir()) / f"invigilator-tests-much-memory-{os.getuid()}"
"""Shared by all processes of a pytest session, and by all sessions of a user on this machine."""


@contextmanager
def my_turn(file: Path) -> Iterator[None]:
    """Wait until nobody else is in here with this file. Whoever dies in here is gone from it, too.

    Parameters:
        file: made when it is not there, and left.
    """
    with file.open("a") as held:
        fcntl.flock(held, fcntl.LOCK_EX)  # the kernel gives it back when the process ends, however it does
        yield
