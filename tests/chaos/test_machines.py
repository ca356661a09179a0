"""What a storm of several machines leaves when it is killed, and what the next one does about it."""

import os
import shutil
import subprocess

import pytest

from tests.chaos.machines import LINKS, NAMESPACES, NEEDED, remove_leftovers


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("ip") is None, reason=NEEDED)
def test_the_next_storm_takes_away_what_a_killed_one_has_left() -> None:
    # Given a namespace and a bridge of a process that has ended, and those of one that runs
    ended = subprocess.Popen(["true"])
    ended.wait()
    for pid in (ended.pid, os.getpid()):
        ip(f"netns add inv{pid}m0")
        ip(f"link add inv{pid} type bridge")
    try:
        # When the next storm begins
        remove_leftovers()
        # Then only the latter are there
        assert not (NAMESPACES / f"inv{ended.pid}m0").exists()
        assert not (LINKS / f"inv{ended.pid}").exists()
        assert (NAMESPACES / f"inv{os.getpid()}m0").exists()
        assert (LINKS / f"inv{os.getpid()}").exists()
    finally:
        ip(f"netns del inv{os.getpid()}m0")
        ip(f"link del inv{os.getpid()}")


def ip(arguments: str) -> None:
    subprocess.run(["ip", *arguments.split()], check=True)
