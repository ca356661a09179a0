"""A small site: `invigilator work` and one Celery worker for everything."""

import json

import pytest

from tests.acceptance.harness import Process, Stack
from tests.acceptance.load import feeding, load
from tests.acceptance.oracle import assert_nothing_lost_or_doubled

_OWNED = "SELECT count(*) FROM shards WHERE split_part(owner, ':', 2) = :pid"


def roles_of(stack: Stack, process: Process) -> set[str]:
    """The roles that `status` shows of a process that works."""
    document = json.loads(stack.cli("status", "--json").stdout)
    return {
        one["role"]
        for one in document["processes"]
        if one["pid"] == process.pid and one["state"] == "working"
    }


@pytest.mark.parametrize("becomes_divided", [False, True])
def test_two_processes_do_everything_and_may_be_killed(
    stack: Stack, calm_database_url: str, becomes_divided: bool
) -> None:
    # Given two processes
    bodies = load(60, seed=16)
    first = stack.program("invigilator", "work")
    stack.celery("worker", "--hostname", "effects@%h", "--without-gossip", "--without-mingle")
    # When the one with the commands and the relay is killed at work, and replaced, or the tables are divided before
    with feeding(stack.client, bodies):
        stack.wait_until_handled(len(bodies) // 3)
        if becomes_divided:
            stack.cli("partitions", "begin")
        first.kill()
        second = stack.program("invigilator", "work")
    stack.settle()
    # Then nothing is lost or doubled
    assert_nothing_lost_or_doubled(stack, calm_database_url)
    # And the signs of life are those of two processes, until both take leave
    stack.wait_until(
        lambda: stack.number(_OWNED, pid=str(second.pid)) == 1, "the second one to take the shard"
    )
    assert roles_of(stack, second) == {"commands", "relay"}
    assert second.terminate() == 0
    assert roles_of(stack, second) == set()
    assert stack.number("SELECT count(*) FROM shards WHERE owner IS NOT NULL") == 0
