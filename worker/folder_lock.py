"""Tells whether a system runs on a data folder, by the folder's lock.

The running system holds an flock on the file `lock` (`invigilator.local.single_instance` takes it). The kernel
releases the lock when its holder ends, even by `kill -9`, so a lock that is held means a system that runs.
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
    """Return whether a system runs on this folder.

    Raises:
        ConfigurationError: the path cannot be a folder, or it belongs to another user.
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
    """Try to take the lock without waiting, and return whether it was free.

    Parameters:
        descriptor: the open lock file.
        kind: `fcntl.LOCK_SH` or `fcntl.LOCK_EX`.
    """
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def as_configuration_error(data_dir: Path) -> Iterator[None]:
    """Turn an `OSError` of the block into a `ConfigurationError` that names the setting.

    Raises:
        ConfigurationError: the block raised an `OSError`.
    """
    try:
        yield
    except OSError as error:
        raise ConfigurationError(f"{PREFIX}DATA_DIR={data_dir} cannot be used: {error.strerror}") from None
