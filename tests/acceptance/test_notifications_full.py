"""PostgreSQL's queue of notifications is full, because a session of another application stands still."""

from tests.acceptance.harness import Stack
from tests.acceptance.load import load
from tests.acceptance.oracle import assert_nothing_lost_or_doubled
from tests.fullqueue import full_queue, small_queue_postgres


def test_everybody_waits_and_says_who_it_is(valkey_url: str, calm_database_url: str) -> None:
    with (
        small_queue_postgres() as server,
        Stack(server.url, valkey_url) as stack,
        full_queue(server.url) as holder,
    ):
        # Given a full queue, and commands that owe effects
        stack.start_all()
        stack.client.publish(load(60, seed=31))
        [commands] = stack.running("commands")
        # Then consume says so, and goes on trying
        says = f"notifications is 100% full: end the session that keeps it so, most likely pid {holder}"
        stack.wait_until(lambda: commands.output().count(says) > 2, "consume to name the session")
        # When somebody ends that session
        stack.execute(f"SELECT pg_terminate_backend({holder})")
        # Then everything happens
        stack.settle()
        assert_nothing_lost_or_doubled(stack, calm_database_url)
