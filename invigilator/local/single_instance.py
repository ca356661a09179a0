"""Ensures that one system at a time runs on a data folder, by a lock (`worker.folder_lock` looks at it)."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from events.errors import InvigilatorError
from invigilator.local.liveness import is_alive
from worker import folder_lock

PATIENCE_S = 0.5  # `folder_lock.is_held` takes the lock for a moment
GUARD_TIMEOUT_S = 30.0  # the guard of a killed system keeps the lock until it has cleaned up


class AlreadyRunningError(InvigilatorError):
    """Another system runs on this data folder."""

    code = "already_running"


@contextmanager
def hold(data_dir: Path) -> Iterator[int]:
    """Create the folder if it is missing, and hold its lock during the block. Yields the lock's file descriptor.

    A process that inherits the descriptor holds the lock as well, until it ends.

    Raises:
        AlreadyRunningError: another system holds the lock.
        ConfigurationError: the path cannot be a folder, or it belongs to another user.
    """
    with folder_lock.as_configuration_error(data_dir):
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(data_dir / folder_lock.LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        _acquire(descriptor, data_dir)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        yield descriptor
        os.ftruncate(descriptor, 0)
    finally:
        os.close(descriptor)


def _acquire(descriptor: int, data_dir: Path) -> None:
    began = time.monotonic()
    while not folder_lock.try_lock(descriptor, fcntl.LOCK_EX):
        waited = time.monotonic() - began
        owner = _owner(descriptor)
        if waited > (PATIENCE_S if _runs(owner) else GUARD_TIMEOUT_S):
            raise AlreadyRunningError(f"`invigilator up` is already running on {data_dir} (process {owner})")
        time.sleep(0.05)


def _runs(pid: int) -> bool:
    try:
        return is_alive(psutil.Process(pid))
    except psutil.NoSuchProcess:
        return False


def _owner(descriptor: int) -> int:
    return int(os.pread(descriptor, 20, 0) or b"0")
