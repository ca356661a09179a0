"""Processes that are not our children, so that nobody tells us when they end."""

import time

import psutil


def is_alive(process: psutil.Process) -> bool:
    """Whether the process still runs. One that has ended counts as such even before its parent has noticed:
    where process 1 is no real init (a container), that may take for ever."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def wait_for_end(process: psutil.Process, timeout_s: float) -> bool:
    """Wait at most `timeout_s` seconds. Returns whether the process has ended."""
    deadline = time.monotonic() + timeout_s
    while is_alive(process):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True
