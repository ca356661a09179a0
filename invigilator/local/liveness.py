"""Observes processes that are not our children, whose end the kernel does not report to us."""

import time

import psutil


def is_alive(process: psutil.Process) -> bool:
    """Return whether the process still runs.

    A zombie has ended, so it does not count as running. In a container without a real init, nobody may ever
    collect it.
    """
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def wait_for_end(process: psutil.Process, timeout_s: float) -> bool:
    """Wait at most `timeout_s` seconds for the end of a process. Return whether it has ended."""
    deadline = time.monotonic() + timeout_s
    while is_alive(process):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True
