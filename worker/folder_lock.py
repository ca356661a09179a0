"""The lock of a data folder, as seen by those who only look whether a system runs there.

They need nothing of the extra `local`. The lock is the kernel's: however its holder ends, `kill -9` included, it is
released.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from worker.errors import ConfigurationError
from worker.settings import PREFIX

LOCK_FILE = "lock"


def is_held(data_dir: Path) -> bool:
    """Whether a system runs on this folder.

    Raises:
        ConfigurationError: there can be no such folder, or it is another user's.
    """
    with as_configuration_error(data_dir):
        if not (data_dir / LOCK_FILE).exists():
            return False
        descriptor = os.open(data_dir / LOCK_FILE, os.O_RDONLY)
    try:
        return not try_lock(descriptor, fcntl.LOCK_SH)
    finally:
        os.close(descriptor)


def try_lock(descriptor: int, kind: int) -> bool:
    """Take the lock without waiting: `fcntl.LOCK_SH` or `fcntl.LOCK_EX`. Returns whether it was free."""
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def as_configuration_error(data_dir: Path) -> Iterator[None]:
    """Turn errors of the file system into a `ConfigurationError` that names the setting."""
    try:
        yield
    except OSError as error:
        raise ConfigurationError(f"{PREFIX}DATA_DIR={data_dir} cannot be used: {error.strerror}") from None
