"""The relay, killed with -9 or stopped at each crash point of the event log, and a listener that audits."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kombu import Connection
from redis import Redis

from tests.acceptance.harness import Stack
from tests.chaos.crashpoints.effects import introduce, owe, update
from tests.chaos.points import Crash
from worker.feeds.brokers import open_target
from worker.subscriptions import load_subscriptions

LEARNERS = [f"u{number}" for number in range(6)]
FEED = "invigilator.events"
BEHIND = "SELECT count(*) FROM events WHERE position IS NULL OR position > (SELECT position FROM subscribers)"


@pytest.fixture
def stack(database_url: str, broker_url: str, tmp_path: Path) -> Iterator[Stack]:
    """A stack whose relay has stored who subscribes, and a queue that gets everything."""
    file = tmp_path / "subscriptions.toml"
    file.write_text(f'[feed.lms]\nname = "{FEED}"\n', encoding="utf-8")
    with Stack(database_url, broker_url, SUBSCRIPTIONS_FILE=file) as stack:
        bind(broker_url, file)
        relay = stack.start("relay")
        stack.wait_until(lambda: stack.number("SELECT count(*) FROM subscribers") == 1, "the feed")
        relay.terminate()
        yield stack
        unbind(broker_url)


def bind(broker_url: str, file: Path) -> None:
    [feed] = load_subscriptions(file).feed.values()
    with open_target(broker_url, feed):
        pass
    if broker_url.startswith("amqp"):
        with Connection(broker_url) as connection:
            connection.default_channel.queue_declare(FEED, durable=True, auto_delete=False)
            connection.default_channel.queue_bind(FEED, FEED, "#")


def unbind(broker_url: str) -> None:
    if broker_url.startswith("amqp"):
        with Connection(broker_url) as connection:
            connection.default_channel.queue_delete(FEED)
            connection.default_channel.exchange_delete(FEED)


def heard(broker_url: str) -> list[dict[str, Any]]:
    """Everything that the broker has for the listener."""
    if broker_url.startswith("redis"):
        client = Redis.from_url(broker_url)
        entries: Any = client.xrange(FEED)
        client.close()
        return [json.loads(values[b"event"]) for _, values in entries]
    with Connection(broker_url) as connection:
        channel, bodies = connection.default_channel, []
        while message := channel.basic_get(FEED, no_ack=True):
            bodies.append(message.body)
    return [json.loads(body) for body in bodies]


def change(stack: Stack, status: str) -> None:
    owe(stack, [update(user, status) for user in LEARNERS])


def catch_up(stack: Stack, **crash: Any) -> None:
    stack.start("relay", **crash)
    stack.wait_until(lambda: stack.number(BEHIND) == 0, "the feed to catch up")


def audit(stack: Stack, events: list[dict[str, Any]]) -> None:
    """None is lost, none is out of order once copies are left out, and copies are true copies."""
    first: dict[str, dict[str, Any]] = {}
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
def test_killed(stack: Stack, broker_url: str, point: str, copies: int) -> None:
    # Given events that are committed
    owe(stack, introduce(LEARNERS))
    # When the relay dies, then the next one goes on from where the cursor stands
    stack.wait_until_struck(stack.start("relay", crash=Crash(point, "kill")))
    catch_up(stack)
    change(stack, "started")
    stack.wait_until(lambda: stack.number(BEHIND) == 0, "the feed to catch up")
    events = heard(broker_url)
    assert len(events) - len({event["id"] for event in events}) == copies
    audit(stack, events)


def test_stopped_with_events_in_hand(stack: Stack, broker_url: str) -> None:
    # Given a relay that stands still with events that it has read
    owe(stack, introduce(LEARNERS))
    stopped = stack.start("relay", crash=Crash("before_events", "stop"))
    stack.wait_until_struck(stopped)
    # When another one takes over, and the first one wakes up
    catch_up(stack)
    change(stack, "started")
    stack.wait_until(lambda: stack.number(BEHIND) == 0, "the feed to catch up")
    stopped.resume()
    stack.wait_until(lambda: "starting over" in stopped.output(), "it to notice that its tenure is over")
    change(stack, "submitted")
    stack.wait_until(lambda: stack.number(BEHIND) == 0, "the feed to catch up")
    stopped.kill()
    # Then nothing is lost, and what has come late are copies. On Redis nothing comes late.
    events = heard(broker_url)
    if broker_url.startswith("redis"):
        assert len(events) == len({event["id"] for event in events})
    audit(stack, events)


def test_a_wiped_broker_is_told_again(stack: Stack, broker_url: str) -> None:
    # Given a feed that has had everything, and a broker that has lost it
    owe(stack, introduce(LEARNERS))
    catch_up(stack)
    lost = heard(broker_url)
    if broker_url.startswith("redis"):
        client = Redis.from_url(broker_url)
        client.flushall()
        client.close()
    # When a person asks for a replay from before the first event
    stack.cli("events", "replay", "--to", "feed.lms", "--after", str(int(lost[0]["sequence"]) - 1))
    stack.wait_until(lambda: stack.number(BEHIND) == 0, "the feed to catch up")
    # Then the same events are there again
    assert heard(broker_url) == lost
