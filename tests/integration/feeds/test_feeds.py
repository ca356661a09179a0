"""One suite over both brokers: a feed publishes in order, from its cursor, one process at a time."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import count
from typing import Any, Self

import pytest
from kombu import Connection
from redis import Redis
from sqlalchemy import Engine, text
from structlog.typing import EventDict

from db import event_log, subscribers
from events.envelope import CONTENT_TYPE
from tests.integration.effects.conftest import until
from tests.integration.feeds.conftest import number, tell
from tests.loops import running
from worker.commands.sources import BrokerAwayError
from worker.feeds import publisher as module
from worker.feeds.base import OvertakenError, Publication
from worker.feeds.brokers import open_target
from worker.feeds.cloudevents import CloudEventsFormat
from worker.feeds.numberer import Numberer
from worker.feeds.publisher import FeedPublisher
from worker.feeds.redis import epoch_key
from worker.subscribers import Feed
from worker.subscriptions import Subscriptions

NAME = "feed.lms"
LEASE_S = 60.0
AWAY = "redis://127.0.0.1:1"

_names = count(1)


@dataclass
class Listener:
    """A broker, and whoever listens to one feed on it."""

    url: str
    feed: Feed = field(default_factory=lambda: Feed(name=f"events-{next(_names)}"))

    @property
    def is_redis(self) -> bool:
        return self.url.startswith("redis")

    def bind(self) -> None:
        """On RabbitMQ: make a queue that gets everything."""
        if not self.is_redis:
            with open_target(self.url, self.feed), Connection(self.url) as connection:
                channel = connection.default_channel
                channel.queue_declare(self.feed.name, durable=True, auto_delete=False)
                channel.queue_bind(self.feed.name, self.feed.name, "#")

    def unbind(self) -> None:
        if not self.is_redis:
            with Connection(self.url) as connection:
                connection.default_channel.queue_delete(self.feed.name)
                connection.default_channel.exchange_delete(self.feed.name)

    def take(self) -> list[dict[str, Any]]:
        """Take what has come since the last time, in order."""
        return [json.loads(body) for body in (self._from_redis() if self.is_redis else self._from_rabbitmq())]

    def sizes(self) -> list[int]:
        return [one["data"]["size"] for one in self.take()]

    def _from_redis(self) -> list[bytes]:
        with Redis.from_url(self.url) as client, client.pipeline(transaction=True) as both:
            both.xrange(self.feed.name)
            both.xtrim(self.feed.name, maxlen=0, approximate=False)
            entries, _ = both.execute()
        return [values[b"event"] for _, values in entries]

    def _from_rabbitmq(self) -> list[bytes]:
        bodies = []
        with Connection(self.url) as connection:
            channel = connection.default_channel
            while message := channel.basic_get(self.feed.name, no_ack=True):
                assert message.properties["message_id"] == json.loads(message.body)["id"]
                assert message.properties["delivery_mode"] == 2
                assert message.properties["content_type"] == CONTENT_TYPE
                assert message.delivery_info["routing_key"] == json.loads(message.body)["type"]
                bodies.append(message.body)
        return bodies


@pytest.fixture(params=["valkey", "rabbitmq"])
def listener(request: pytest.FixtureRequest) -> Iterator[Listener]:
    listener = Listener(request.getfixturevalue(f"{request.param}_url"))
    listener.bind()
    yield listener
    listener.unbind()


def publisher(engine: Engine, listener: Listener, url: str | None = None, owner: str = "me") -> FeedPublisher:
    return FeedPublisher(
        name=NAME,
        format=CloudEventsFormat(listener.feed, "/invigilator/main"),
        owner=owner,
        engine=engine,
        open_target=partial(open_target, url or listener.url, listener.feed),
        lease_s=LEASE_S,
    )


def subscribe(engine: Engine) -> None:
    with engine.begin() as connection:
        subscribers.store(connection, {NAME: {}})


def standings(engine: Engine) -> dict[str, subscribers.Standing]:
    with engine.begin() as connection:
        return {one.name: one for one in subscribers.standings(connection)}


def standing(engine: Engine) -> subscribers.Standing:
    [found] = standings(engine).values()
    return found


def test_a_feed_gets_everything_in_order(engine: Engine, listener: Listener) -> None:
    # Given a feed that is new, and a relay's loops
    feed = Subscriptions(feed={"lms": listener.feed})
    numberer = Numberer(engine, feed, poll_s=60)
    numberer.store()
    with running(numberer.run, publisher(engine, listener).run):
        # When events are committed, many and few
        tell(engine, *range(event_log.READ_AT_ONCE + 1))
        tell(engine, 7_000)
        until(lambda: standing(engine).behind == 0)
    # Then it has each once, in order, as CloudEvents with growing positions
    heard = listener.take()
    assert [one["data"]["size"] for one in heard] == [*range(event_log.READ_AT_ONCE + 1), 7_000]
    positions = [int(one["sequence"]) for one in heard]
    assert positions == list(range(positions[0], positions[0] + len(heard)))
    assert {(one["source"], one["type"]) for one in heard} == {
        ("/invigilator/main", "exam.message.quarantined.v1")
    }


def test_a_replay_comes_with_the_same_ids(engine: Engine, listener: Listener) -> None:
    subscribe(engine)
    tell(engine, 1, 2, 3)
    number(engine)
    with running(publisher(engine, listener).run):
        until(lambda: standing(engine).behind == 0)
        first = listener.take()
        with engine.begin() as connection:
            assert subscribers.replay(connection, NAME, int(first[0]["sequence"])) is None
        again: list[dict[str, Any]] = []

        def has_all_again() -> bool:
            again.extend(listener.take())
            return len(again) >= 2

        until(has_all_again)
    assert again == first[1:]


def test_other_types_are_passed_over(engine: Engine, listener: Listener) -> None:
    listener.feed = Feed(name=listener.feed.name, types=["exam.attempt.*"])
    subscribe(engine)
    tell(engine, 1)
    number(engine)
    with running(publisher(engine, listener).run):
        until(lambda: standing(engine).behind == 0)
    assert listener.take() == []


def test_a_feed_that_is_away_is_named_and_loses_nothing(engine: Engine, listener: Listener) -> None:
    # Given a broker that does not answer
    subscribe(engine)
    tell(engine, 1, 2)
    number(engine)
    with running(publisher(engine, listener, url=AWAY).run):
        until(lambda: standing(engine).failing_since is not None)
    assert standing(engine).behind == 2
    assert "the broker takes no events" in str(standing(engine).reason)
    # When it is back, then it gets what has waited, and nothing is said any more
    with running(publisher(engine, listener).run):
        until(lambda: standing(engine).behind == 0)
    assert (standing(engine).reason, listener.sizes()) == (None, [1, 2])


def test_a_feed_that_is_away_stops_no_other(engine: Engine, listener: Listener) -> None:
    # Given two feeds, of which one goes to a broker that does not answer
    away, there = (
        publisher(engine, listener, url=AWAY),
        replace(publisher(engine, listener), name="feed.other"),
    )
    with engine.begin() as connection:
        subscribers.store(connection, {away.name: {}, there.name: {}})
    with running(away.run, there.run):
        tell(engine, 1, 2)
        number(engine)
        until(lambda: standings(engine)[away.name].failing_since is not None)
        until(lambda: standings(engine)[there.name].behind == 0)
    # Then the other one has everything, and the events wait for the first one in the table
    assert listener.sizes() == [1, 2]
    assert standings(engine)[away.name].behind == 2


@dataclass
class Slow:
    """A target that does not answer at first, and keeps how many events it was given at once."""

    given: list[int] = field(default_factory=list)
    answers: bool = False

    def publish(self, publications: Sequence[Publication], epoch: int) -> None:
        self.given.append(len(publications))
        if not self.answers:
            raise BrokerAwayError("the broker takes no events: it is slow")

    def close(self) -> None: ...

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None: ...


def test_what_waits_for_a_feed_is_not_in_memory(
    engine: Engine, listener: Listener, monkeypatch: pytest.MonkeyPatch, logged: list[EventDict]
) -> None:
    # Given a broker that takes nothing, and far more events than are read at once
    monkeypatch.setattr(module, "PAUSE_S", 0.01)
    slow = Slow()
    feed = replace(publisher(engine, listener), open_target=lambda: slow)
    subscribe(engine)
    many = 3 * event_log.READ_AT_ONCE + 1
    tell(engine, *range(many))
    while number(engine):
        pass
    # When it is tried again and again, and takes events at last
    with running(feed.run):
        until(lambda: len(slow.given) >= 3)
        slow.answers = True
        until(lambda: standing(engine).behind == 0)
    # Then no try held more than one reading of the log
    assert max(slow.given) == event_log.READ_AT_ONCE
    assert sum(slow.given[-4:]) == many
    # And the log has one line about all the tries
    [line] = logged
    assert (line["event"], line["subscriber"]) == ("events wait in the database", NAME)
    assert line["reason"] == "the broker takes no events: it is slow"


def test_a_standby_takes_over_when_the_lease_has_ended(engine: Engine, listener: Listener) -> None:
    # Given somebody who serves the feed and is never heard of again
    subscribe(engine)
    with engine.begin() as connection:
        assert subscribers.take(connection, NAME, "somebody", LEASE_S) is not None
    tell(engine, 1)
    number(engine)
    standby = publisher(engine, listener)
    with engine.begin() as connection:
        assert subscribers.take(connection, NAME, standby.owner, LEASE_S) is None
        connection.execute(text("UPDATE subscribers SET lease_until = now() - interval '1 s'"))
    with running(standby.run):
        until(lambda: standing(engine).behind == 0)
    assert listener.sizes() == [1]


def test_a_publisher_that_wakes_up_late_adds_nothing_to_redis(valkey_url: str) -> None:
    # Given a publisher that was stopped, and its successor
    listener = Listener(valkey_url)
    one = Publication("id", "exam.attempt.created.v1", b'{"data": {"size": 1}}')
    with open_target(valkey_url, listener.feed) as late, open_target(valkey_url, listener.feed) as successor:
        late.publish([one], epoch=1)
        successor.publish([one], epoch=2)
        # When it goes on, then it is refused, also if it has looked before the successor came
        with pytest.raises(OvertakenError):
            late.publish([one], epoch=1)
        with pytest.raises(OvertakenError):
            _publish_while(late, lambda: successor.publish([one], epoch=3))
    assert listener.sizes() == [1, 1, 1]


def test_a_key_that_somebody_else_has_written_is_named(valkey_url: str) -> None:
    listener = Listener(valkey_url)
    one = Publication("id", "exam.attempt.created.v1", b'{"data": {"size": 1}}')
    key = epoch_key(listener.feed.name)
    with open_target(valkey_url, listener.feed) as target, Redis.from_url(valkey_url) as client:
        client.set(key, "garbage")
        with pytest.raises(BrokerAwayError, match=f"the key {key} holds no number"):
            target.publish([one], epoch=1)
        client.delete(key)


def test_what_the_broker_refuses_is_named_without_the_event(valkey_url: str) -> None:
    listener = Listener(valkey_url)
    one = Publication("id", "exam.attempt.created.v1", b"ada@example.org")
    with open_target(valkey_url, listener.feed) as target, Redis.from_url(valkey_url) as client:
        client.delete(listener.feed.name)
        client.set(listener.feed.name, "a string")
        with pytest.raises(BrokerAwayError) as caught:
            target.publish([one], epoch=1)
        client.delete(listener.feed.name, epoch_key(listener.feed.name))
    assert "WRONGTYPE" in str(caught.value)
    assert "ada@" not in str(caught.value)


def _publish_while(late: Any, what: Callable[[], None]) -> None:
    """Let something happen between a publisher's look at the epoch and its write."""
    pipeline = late.client.pipeline

    def held_up(**options: Any) -> Any:
        made = pipeline(**options)
        multi = made.multi

        def multi_after_that() -> None:
            what()
            multi()

        made.multi = multi_after_that
        return made

    late.client.pipeline = held_up
    late.publish([Publication("id", "t", b"{}")], epoch=2)


def test_a_stream_is_kept_short(valkey_url: str) -> None:
    listener = Listener(valkey_url, Feed(name="short", max_len=100))
    many = [Publication(str(n), "t", b"{}") for n in range(500)]
    with open_target(valkey_url, listener.feed) as target:
        target.publish(many, epoch=1)
        target.publish(many, epoch=1)
    client = Redis.from_url(valkey_url)
    assert client.xlen("short") < 500
    client.delete("short", epoch_key("short"))
    client.close()


def test_an_exchange_of_another_kind_is_named(rabbitmq_url: str) -> None:
    listener = Listener(rabbitmq_url)
    with Connection(rabbitmq_url) as connection:
        connection.default_channel.exchange_declare(
            listener.feed.name, "fanout", durable=True, auto_delete=False
        )
        try:
            with pytest.raises(BrokerAwayError, match="is no durable topic exchange"):
                open_target(rabbitmq_url, listener.feed)
        finally:
            connection.default_channel.exchange_delete(listener.feed.name)


def test_who_is_taken_out_is_not_served(engine: Engine, listener: Listener) -> None:
    numberer = Numberer(engine, Subscriptions(feed={"lms": listener.feed}), poll_s=60)
    numberer.store()
    with running(publisher(engine, listener).run):
        until(lambda: _owner(engine) == "me")
        Numberer(engine, Subscriptions(), poll_s=60).store()
        tell(engine, 1)
        number(engine)
    assert listener.take() == []


def _owner(engine: Engine) -> str | None:
    with engine.begin() as connection:
        owner: str | None = connection.exec_driver_sql("SELECT owner FROM subscribers").scalar()
        return owner
