"""The relay, killed with -9 at each of its crash points; and workers that die with messages in hand."""

from collections.abc import Iterator

import pytest

from tests.acceptance.harness import Stack
from tests.acceptance.oracle import assert_nothing_lost_or_doubled
from tests.chaos.crashpoints.effects import (
    CREDIT_QUEUE,
    UNHURRIED,
    calls,
    end_offers,
    holding_calls,
    introduce,
    lapse,
    messages,
    owe,
    results,
    states,
    update,
)
from tests.chaos.points import Crash

EFFECTS = 12
PUBLISHED = 4
BACKLOG = 40
THREADS = 16


@pytest.fixture
def stack(database_url: str, broker_url: str) -> Iterator[Stack]:
    with Stack(database_url, broker_url, **UNHURRIED) as stack:
        yield stack


def test_killed_around_publishing(stack: Stack, broker_url: str, calm_database_url: str) -> None:
    owe_credits(stack, EFFECTS)
    published = 0
    # Redis gets a batch of offers as a whole.
    some = 0 if broker_url.startswith("redis") else PUBLISHED
    for crash, more in (
        (Crash("before_publishing", "kill"), 0),
        (Crash("between_offers", "kill", nth=PUBLISHED + 1), some),
        (Crash("after_publishing", "kill"), EFFECTS),
    ):
        # When it dies with every offer stamped, and none, some or all of them published
        stack.wait_until_struck(stack.start("relay", crash=crash))
        published += more
        assert messages(stack, CREDIT_QUEUE) == published
        assert not offered_now(stack)
        end_offers(stack)
    # Then the next one offers all of them once more
    stack.start("relay")
    published += EFFECTS
    stack.wait_until(lambda: messages(stack, CREDIT_QUEUE) == published, "all to be offered again")
    # and whatever comes twice is called once
    stack.start("effects")
    stack.settle()
    assert set(map(tuple, results(stack).values())) == {("done",)}
    assert [len(made) for made in calls(stack).values()] == [1] * EFFECTS
    assert_nothing_lost_or_doubled(stack, calm_database_url)


def test_a_worker_killed_with_messages_in_hand(stack: Stack, calm_database_url: str) -> None:
    # Given a worker whose threads are all busy, and that has more messages in hand
    owe_credits(stack, BACKLOG)
    stack.start("relay")
    with holding_calls(stack):
        worker = stack.start("effects")
        stack.wait_until(
            lambda: states(stack)["running"] == THREADS and messages(stack, CREDIT_QUEUE) < BACKLOG - THREADS,
            "the worker to have more than it can run",
        )
        # When it dies, then every effect is either in a try or offered, and no offer lasts for ever
        worker.kill()
    assert states(stack) == {"running": THREADS, "pending": BACKLOG - THREADS}
    assert stack.number("SELECT count(offered_until) FROM effects") == BACKLOG - THREADS
    ttl_s = 2 * UNHURRIED["CALL_TIMEOUT_S"]
    assert (
        stack.number(f"SELECT count(*) FROM effects WHERE offered_until > now() + interval '{ttl_s} s'") == 0
    )
    # When the time of tries and offers is over, then all of them are done
    lapse(stack)
    end_offers(stack)
    stack.start("effects")
    stack.settle()
    tried = list(results(stack).values())
    assert tried.count(["lost", "done"]) == THREADS
    assert tried.count(["done"]) == BACKLOG - THREADS
    assert_nothing_lost_or_doubled(stack, calm_database_url)


def owe_credits(stack: Stack, how_many: int) -> None:
    users = [f"u{number}" for number in range(how_many)]
    owe(stack, [*introduce(users), *(update(user, "error") for user in users)])


def offered_now(stack: Stack) -> bool:
    return stack.number("SELECT count(*) FROM effects WHERE offered_until IS NULL") > 0
