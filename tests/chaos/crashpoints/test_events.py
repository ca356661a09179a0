"""The relay, killed with -9 or stopped at each crash point of the event log, and a listener that audits."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from tests.acceptance.harness import Stack
from tests.chaos.crashpoints.effects import introduce, owe, update
from tests.chaos.listener import BEHIND, Listener, write_subscriptions
from tests.chaos.points import Crash

LEARNERS = [f"u{number}" for number in range(6)]


@pytest.fixture
def listener(broker_url: str, tmp_path: Path) -> Iterator[Listener]:
    listener = Listener(broker_url, write_subscriptions(tmp_path))
    listener.bind()
    yield listener
    listener.unbind()


@pytest.fixture
def stack(database_url: str, broker_url: str, tmp_path: Path, listener: Listener) -> Iterator[Stack]:
    """A stack whose relay has stored who subscribes."""
    with Stack(database_url, broker_url, SUBSCRIPTIONS_FILE=tmp_path / "subscriptions.toml") as stack:
        relay = stack.start("relay")
        stack.wait_until(lambda: stack.number("SELECT count(*) FROM subscribers") == 1, "the feed")
        relay.terminate()
        yield stack


def heard(listener: Listener) -> list[Mapping[str, Any]]:
    """Everything that has come, in order."""
    listener.take()
    return [one.event for one in listener.arrivals]


def change(stack: Stack, status: str) -> None:
    owe(stack, [update(user, status) for user in LEARNERS])


def catch_up(stack: Stack, **crash: Any) -> None:
    stack.start("relay", **crash)
    stack.wait_until(lambda: stack.number(BEHIND) == 0, "the feed to catch up")


def audit(stack: Stack, events: Sequence[Mapping[str, Any]]) -> None:
    """None is lost, none is out of order once copies are left out, and copies are true copies."""
    first: dict[str, Mapping[str, Any]] = {}
    for event in events:
        assert first.setdefault(event["id"], event) == event
    assert sorted(first) == sorted(str(row.id) for row in stack.rows("SELECT id FROM events"))
    positions = [int(event["sequence"]) for event in first.values()]
    assert positions == list(range(positions[0], positions[0] + len(positions)))
    history = [(one["subject"], one["data"]["version"]) for one in first.values()]
    recorded = stack.rows(
        "SELECT coalesce(attempt_code, a.id::text) AS code, t.version FROM transitions t "
        "JOIN attempts a ON a.id = attempt_id"
    )
    assert sorted(history) == sorted((row.code, row.version) for row in recorded)
    for code in {code for code, _ in history}:
        versions = [version for one, version in history if one == code]
        assert versions == sorted(versions)


@pytest.mark.parametrize(
    ("point", "copies"),
    [
        ("before_numbering_commit", 0),
        ("before_events", 0),
        ("before_cursor", len(LEARNERS)),
        ("after_cursor", 0),
    ],
)
def test_killed(stack: Stack, listener: Listener, point: str, copies: int) -> None:
    # Given events that are committed
    owe(stack, introduce(LEARNERS))
    # When the relay dies, then the next one goes on from where the cursor stands
    stack.wait_until_struck(stack.start("relay", crash=Crash(point, "kill")))
    catch_up(stack)
    change(stack, "started")
    stack.wait_until(lambda: stack.number(BEHIND) == 0, "the feed to catch up")
    events = heard(listener)
    assert len(events) - len({event["id"] for event in events}) == copies
    audit(stack, events)


def test_stopped_with_events_in_hand(stack: Stack, listener: Listener) -> None:
    # Given a relay that stands still with events that it has read
    owe(stack, introduce(LEARNERS))
    stopped = stack.start("relay", crash=Crash("before_events", "stop"))
    stack.wait_until_struck(stopped)
    # When another one takes over, and the first one wakes up
    catch_up(stack)
    change(stack, "started")
    stack.wait_until(lambda: stack.number(BEHIND) == 0, "the feed to catch up")
    stopped.resume()
    stack.wait_until(lambda: "starts over" in stopped.output(), "it to notice that its tenure is over")
    change(stack, "submitted")
    stack.wait_until(lambda: stack.number(BEHIND) == 0, "the feed to catch up")
    stopped.kill()
    # Then nothing is lost, and what has come late are copies. On Redis nothing comes late.
    events = heard(listener)
    if listener.is_redis:
        assert len(events) == len({event["id"] for event in events})
    audit(stack, events)


def test_a_wiped_broker_is_told_again(stack: Stack, broker_url: str, listener: Listener) -> None:
    # Given a feed that has had everything, and a broker that has lost it
    owe(stack, introduce(LEARNERS))
    catch_up(stack)
    lost = heard(listener)
    if listener.is_redis:
        client = Redis.from_url(broker_url)
        client.flushall()
        client.close()
    # When a person asks for a replay from before the first event
    stack.cli("events", "replay", "--to", "feed.lms", "--after", str(int(lost[0]["sequence"]) - 1))
    stack.wait_until(lambda: stack.number(BEHIND) == 0, "the feed to catch up")
    # Then the same events are there again
    assert heard(listener) == [*lost, *lost]
