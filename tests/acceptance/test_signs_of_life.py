"""Who is missing or stands still is named, and `status --check` tells whether work waits for it."""

import json
from collections.abc import Iterator

import pytest

from tests.acceptance.harness import Process, Stack
from tests.acceptance.load import load

HEARTBEAT_S = 0.5  # so a process is missing after 1.5 s


@pytest.fixture(params=["valkey_url", "rabbitmq_url"])
def stack(request: pytest.FixtureRequest, database_url: str) -> Iterator[Stack]:
    with Stack(database_url, request.getfixturevalue(request.param), HEARTBEAT_S=HEARTBEAT_S) as stack:
        yield stack


@pytest.fixture
def on_valkey(database_url: str, valkey_url: str) -> Iterator[Stack]:
    with Stack(database_url, valkey_url, HEARTBEAT_S=HEARTBEAT_S) as stack:
        yield stack


def check(stack: Stack) -> tuple[int, str]:
    ran = stack.cli("status", "--check", check=False)
    assert ran.stdout.count("\n") == 1
    return ran.returncode, ran.stdout


def until(stack: Stack, status: int, said: str) -> None:
    def is_so() -> bool:
        found, line = check(stack)
        return found == status and said in line

    stack.wait_until(is_so, f"status --check to end with {status} and say {said!r}")


def states(stack: Stack) -> dict[int, str]:
    """The states of the processes that `status` shows, by pid."""
    document = json.loads(stack.cli("status", "--json").stdout)
    return {one["pid"]: one["state"] for one in document["processes"]}


def until_state(stack: Stack, process: Process, state: str | None) -> None:
    stack.wait_until(lambda: states(stack).get(process.pid) == state, f"{process.name} to be {state}")


def test_a_consumer_that_was_stopped_with_a_full_queue(stack: Stack) -> None:
    # Given a consumer at work
    commands = stack.start("commands")
    stack.client.publish(load(20, seed=1))
    stack.settle_commands()
    until_state(stack, commands, "working")
    # When it stands still, and commands come
    commands.pause()
    stack.client.publish(load(20, seed=2))
    # Then the system does not work, and who is missing is named
    until(stack, 2, "not working: ")
    assert states(stack)[commands.pid] == "missing"
    # And when it goes on, it works again
    commands.resume()
    stack.settle_commands()
    until_state(stack, commands, "working")
    status, line = check(stack)
    assert "commands" not in line or status != 2


def test_a_worker_that_is_killed_replaced_and_ends(on_valkey: Stack) -> None:
    stack = on_valkey
    # Given a worker that waits for work
    killed = stack.start("mail")
    until_state(stack, killed, "working")
    [row] = stack.rows("SELECT role, doing FROM processes")
    assert (row.role, row.doing["queues"]) == ("mail", ["invigilator.effects.email"])
    # When it is killed, then it is missing
    killed.kill()
    until_state(stack, killed, "missing")
    status, line = check(stack)
    assert (status, f"mail on {_host(stack)} (pid {killed.pid}) is missing" in line) == (1, True)
    # When another one takes its place, then nobody asks for it any more
    successor = stack.start("mail")
    until_state(stack, killed, None)
    until_state(stack, successor, "working")
    assert check(stack) == (0, "working\n")
    # And a clean end leaves nothing behind
    assert successor.terminate() == 0
    assert stack.rows("SELECT * FROM processes") == []


def _host(stack: Stack) -> str:
    return str(stack.rows("SELECT host FROM processes")[0].host)


@pytest.mark.parametrize("name", ["commands", "relay", "web"])
def test_a_clean_end_takes_the_row_away(on_valkey: Stack, name: str) -> None:
    process = on_valkey.start(name, WEB_ADDRESS="127.0.0.1:0")
    until_state(on_valkey, process, "working")
    assert on_valkey.number("SELECT count(*) FROM processes WHERE role = :role", role=name) == 1
    assert process.terminate() == 0
    assert on_valkey.rows("SELECT * FROM processes") == []
