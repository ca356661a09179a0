"""The guard process: its orders survive its own end, and it ends the watched processes."""

import subprocess
import time
from collections.abc import Iterator

import pytest

from invigilator.local.guard import Guard
from invigilator.local.supervision import Part

PATIENCE_S = 60


@pytest.fixture
def sleepers() -> "Iterator[list[subprocess.Popen[bytes]]]":
    """Yield three processes, each the leader of a group."""
    started = [subprocess.Popen(["sleep", "600"], start_new_session=True) for _ in range(3)]
    yield started
    for one in started:
        one.kill()
        one.wait()


def test_what_is_told_to_a_guard_that_has_ended_is_told_to_its_successor(
    sleepers: "list[subprocess.Popen[bytes]]",
) -> None:
    kept, forgotten, late = sleepers
    with Guard() as guard:
        # Given a guard that watches two groups, and is killed
        guard.watch_group(kept.pid)
        guard.watch_group(forgotten.pid)
        part = Part("guard", guard.renew, lambda line: None, running=guard)
        guard.process.kill()
        guard.process.wait()
        # When things go on before and after its end has been noticed
        guard.forget(forgotten.pid)
        part.check()
        assert part.running is None
        guard.watch_group(late.pid)
        deadline = time.monotonic() + PATIENCE_S
        while part.running is None:
            part.check()
            assert time.monotonic() < deadline
    # Then the next one ends what is watched then
    assert [kept.wait(PATIENCE_S), late.wait(PATIENCE_S)] == [-9, -9]
    assert forgotten.poll() is None


def test_a_guard_that_has_ended_and_was_not_renewed_can_be_left(
    sleepers: "list[subprocess.Popen[bytes]]",
) -> None:
    with Guard() as guard:
        guard.process.kill()
        guard.process.wait()
        guard.watch_group(sleepers[0].pid)
    assert guard.process.returncode == -9
