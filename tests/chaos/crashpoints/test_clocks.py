"""Clocks that are stepped by a day, in a process and on the database's server, while everything works."""

from collections.abc import Iterator

import pytest

from tests.acceptance.harness import Stack
from tests.acceptance.load import feeding, load
from tests.acceptance.oracle import assert_nothing_lost_or_doubled, assert_record_of_a_calm_day
from tests.chaos.points import Action, Crash

BATCH = 5
STORED_TIMES = (
    ("shards", "lease_until"),
    ("effects", "due_at"),
    ("effects", "lease_until"),
    ("effects", "offered_until"),
    ("circuits", "open_until"),
)


@pytest.fixture
def stack(database_url: str, valkey_url: str) -> Iterator[Stack]:
    with Stack(database_url, valkey_url) as stack:
        yield stack


@pytest.mark.parametrize("action", ["clock_back", "clock_forward"])
def test_the_clock_of_a_process(stack: Stack, calm_database_url: str, action: Action) -> None:
    stack.client.publish(load(100, seed=61))
    process = stack.start("commands", crash=Crash("before_fence", action, nth=10), BATCH_SIZE=BATCH)
    stack.settle_commands()
    assert process.is_struck
    [[span]] = stack.rows("SELECT extract(epoch FROM max(handled_at) - min(handled_at)) FROM outcomes")
    assert span > 80_000, "some commands of today, and some of another day"
    assert_record_of_a_calm_day(stack, calm_database_url)


def test_the_clock_of_the_database(stack: Stack, calm_database_url: str) -> None:
    bodies = load(400, seed=62)
    stack.lms.latency_s = 0.05
    for _ in range(2):
        stack.start("commands", BATCH_SIZE=BATCH)
    for name in ("relay", "effects", "mail"):
        stack.start(name)
    with feeding(stack.client, bodies):
        # When the clock goes forward, then every lease has ended, and every pause
        stack.wait_until_handled(150)
        step_clock(stack, "1 day")
        # When it goes back, then what waits waits for a day longer
        stack.wait_until_handled(300)
        step_clock(stack, "-1 day")
        # until somebody mends it
        step_clock(stack, "1 day")
    stack.lms.latency_s = 0.0
    stack.settle()
    assert_nothing_lost_or_doubled(stack, calm_database_url)


def step_clock(stack: Stack, by: str) -> None:
    """Step the clock of the database's server, or what comes to the same: every time that it compares with it."""
    stack.execute(
        "; ".join(
            f"UPDATE {table} SET {column} = {column} - interval '{by}'" for table, column in STORED_TIMES
        )
    )
