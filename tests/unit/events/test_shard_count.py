"""What a publisher was told of the number of shards, held against what the broker says."""

import time
from unittest.mock import Mock

import pytest
from amqp import Connection
from amqp.exceptions import AccessRefused, InternalError, NotFound, PreconditionFailed

from events.errors import PublishError, ShardsMismatchError
from events.shard_count import ShardCount, Silence, ask_rabbitmq
from events.sharding import Announcement, read_number


def test_nobody_has_said_anything() -> None:
    assert ShardCount(None).number == 1
    assert ShardCount(3).number == 3
    assert ShardCount(None, assumed=4).number == 4


@pytest.mark.parametrize("told", [None, 4])
def test_a_broker_that_may_just_be_slow_is_waited_for_by_who_knows_no_number(told: int | None) -> None:
    # Given a broker that was told a number
    count = ShardCount(told)
    # When it says nothing, then only a number that the publisher was told counts
    if told:
        assert count.hear(Silence.QUIET, time.monotonic(), "5f0c")
    else:
        with pytest.raises(PublishError, match="does not say how many shards") as caught:
            count.hear(Silence.QUIET, time.monotonic(), "5f0c")
        assert caught.value.command_id == "5f0c"
        assert count.is_stale()
    # and afterwards the one that it has said
    assert count.hear(Announcement(4), time.monotonic(), None)
    assert count.hear(Silence.QUIET, time.monotonic(), None)
    assert (count.number, count.is_stale()) == (4, False)


def test_who_has_assumed_a_number_does_not_trust_it_when_the_broker_was_told_one() -> None:
    count = ShardCount(None, assumed=2)
    assert count.hear(Silence.UNTOLD, time.monotonic(), None)
    assert count.number == 2
    with pytest.raises(PublishError):
        count.hear(Silence.QUIET, time.monotonic(), None)


def test_the_broker_says_what_it_was_told() -> None:
    count = ShardCount(3)
    assert count.is_stale()
    count.hear(Announcement(3), time.monotonic(), None)
    assert count.number == 3
    assert not count.is_stale()
    count.forget()
    assert count.is_stale()


def test_the_broker_says_another() -> None:
    count = ShardCount(3)
    with pytest.raises(ShardsMismatchError) as caught:
        count.hear(Announcement(4), time.monotonic(), "5f0c")
    assert caught.value.command_id == "5f0c"
    assert (count.number, count.is_stale()) == (3, True)


def test_the_broker_says_nothing(caplog: pytest.LogCaptureFixture) -> None:
    learned = ShardCount(None)
    learned.hear(Announcement(4), time.monotonic(), None)
    learned.hear(Silence.UNTOLD, time.monotonic(), None)
    learned.hear(Silence.UNTOLD, time.monotonic(), None)
    assert learned.number == 4
    assert len(caplog.records) == 1


def test_who_hears_nothing_asks_less_and_less_often(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("events.shard_count.time.monotonic", lambda: now)
    count, pauses = ShardCount(None), []
    for _ in range(6):
        count.hear(Silence.UNTOLD, now, None)
        began = now
        while not count.is_stale():
            now += 0.5
        pauses.append(now - began)
    assert pauses == [1, 2, 4, 8, 10, 10]
    # After an answer it begins anew
    count.hear(Announcement(4), now, None)
    count.hear(Silence.UNTOLD, now, None)
    now += 1
    assert count.is_stale()


def test_it_is_asked_before_each_message_while_the_number_is_about_to_change() -> None:
    count = ShardCount(None)
    count.hear(Announcement(4, next=8, version=1), time.monotonic(), None)
    assert (count.number, count.is_stale()) == (4, True)
    count.hear(Announcement(8, version=2), time.monotonic(), None)
    assert (count.number, count.is_stale()) == (8, False)


def test_the_answer_is_as_old_as_the_question(monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a publisher that stood still between the broker's answer and its hearing of it
    monkeypatch.setattr("events.shard_count.time.monotonic", lambda: 9.0)
    count = ShardCount(None)
    count.hear(Announcement(4), 0.0, None)
    # Then it asks again so long after the question that no notice is shorter
    assert not count.is_stale()
    monkeypatch.setattr("events.shard_count.time.monotonic", lambda: 10.0)
    assert count.is_stale()


@pytest.mark.parametrize("answer", [*Silence, Announcement(4, version=0)])
def test_nothing_is_sent_when_the_broker_no_longer_says_whether_the_number_has_changed(
    answer: Announcement | Silence,
) -> None:
    # Given a number that is about to change
    count = ShardCount(None)
    assert count.hear(Announcement(4, next=8, version=1), time.monotonic(), None)
    # When the broker says nothing of it, as one that was emptied, then no number counts
    assert not count.hear(answer, time.monotonic(), None)
    assert count.is_stale()
    # until the broker says it again
    assert count.hear(Announcement(8, version=2), time.monotonic(), None)
    assert (count.number, count.is_stale()) == (8, False)


def test_what_is_out_of_date_is_not_believed() -> None:
    count = ShardCount(None)
    count.hear(Announcement(8, version=2), time.monotonic(), None)
    count.hear(Announcement(4, next=8, version=1), time.monotonic(), None)
    assert count.number == 8
    # but a broker that was connected to anew may have been restored from a backup
    count.forget()
    count.hear(Announcement(4, version=0), time.monotonic(), None)
    assert count.number == 4


def test_a_connection_that_ends_because_the_stream_is_being_made_may_be_tried_again() -> None:
    channel = Mock()
    channel.connection.channel_errors = Connection.channel_errors
    channel.connection.connection_errors = Connection.connection_errors
    channel.connection.channel.return_value.basic_consume.side_effect = InternalError
    with pytest.raises(Connection.recoverable_connection_errors):
        ask_rabbitmq(channel)


@pytest.mark.parametrize(
    ("error", "silence"),
    [
        (NotFound("no queue 'invigilator.commands.shards' in vhost '/'"), Silence.UNTOLD),
        (AccessRefused("access to queue refused"), Silence.UNTOLD),
        (NotFound("home node 'rabbit@one' of the queue is down or inaccessible"), Silence.QUIET),
        (PreconditionFailed("queue does not have a replica on the local node"), Silence.QUIET),
        (TimeoutError(), Silence.QUIET),
    ],
    ids=str,
)
def test_a_stream_that_is_there_and_cannot_be_read_now_is_not_one_that_was_never_made(
    error: Exception, silence: Silence
) -> None:
    channel = Mock()
    channel.connection.channel_errors = Connection.channel_errors
    channel.connection.channel.return_value.basic_consume.side_effect = error
    assert ask_rabbitmq(channel) is silence


@pytest.mark.parametrize("told", [Announcement(4), Announcement(4, next=8, version=1), Announcement(1024)])
def test_an_announcement_is_read_as_it_was_written(told: Announcement) -> None:
    assert Announcement.read(told.render()) == told


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"4",
        b"[]",
        b"{}",
        b"\xff",
        b'{"shards": "4"}',
        b'{"shards": true}',
        b'{"shards": 1025}',
        b'{"shards": 4, "next": 0}',
        b'{"shards": 4, "version": "1"}',
        b"[" * 100_000,
    ],
)
def test_what_is_no_announcement_says_nothing(body: bytes) -> None:
    assert Announcement.read(body) is None


@pytest.mark.parametrize(
    "text", [None, b"", b"x", b"0", b"1025", b"\xff", b"1e1", b"1_0", b"+3", "4", b"9" * 5000]
)
def test_what_is_no_number_says_nothing(text: object) -> None:
    assert read_number(text) is None
