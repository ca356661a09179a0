"""Subscribers: where they begin, who serves them, and what stays of the log for them."""

import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine, text
from structlog.typing import EventDict

from db import event_log, subscribers
from tests.engines import disposed
from tests.integration.feeds.conftest import log, news, number, tell
from worker.feeds import comparison as comparing
from worker.feeds.comparison import Comparison
from worker.feeds.numberer import Numberer
from worker.subscribers import Api, Feed
from worker.subscriptions import Subscriptions

DAY = timedelta(days=1)
LEASE_S = 60.0
MANY = """
INSERT INTO events (id, position, type, time, data)
SELECT gen_random_uuid(), 2000000 + number, 'exam.message.quarantined.v1', now(), '{}'
FROM generate_series(1, :rows) AS number
"""


def store(engine: Engine, *names: str) -> list[str]:
    with engine.begin() as connection:
        return subscribers.store(connection, {name: {} for name in names}, ["api"])


def cursors(engine: Engine) -> dict[str, int]:
    with engine.begin() as connection:
        return {one.name: one.position for one in subscribers.standings(connection)}


def last(engine: Engine) -> int:
    with engine.begin() as connection:
        return event_log.ends(connection).position


def test_a_new_subscriber_begins_at_the_end(engine: Engine) -> None:
    store(engine, "feed.first")
    tell(engine, 1, 2)  # not numbered yet
    assert store(engine, "feed.first", "feed.second", "api") == []
    assert cursors(engine)["feed.second"] == last(engine)
    assert cursors(engine)["feed.first"] < last(engine)


def test_a_file_that_differs_is_warned_of_once(engine: Engine, logged: list[EventDict]) -> None:
    # Given what the relay has stored, and a process whose file is older
    relays = Subscriptions(api=Api(), feed={"lms": Feed(name="new"), "same": Feed(name="same")})
    older = Subscriptions(feed={"lms": Feed(name="old"), "same": Feed(name="same")})
    Numberer(engine, relays, poll_s=60).store()
    comparison = Comparison(engine, Path("subscriptions.toml"), older)
    # When it looks, then it warns once, and names who differs
    differ = comparison.look([])
    assert differ == comparison.look(differ) == ["api", "feed.lms"]
    [warning] = logged
    assert (warning["file"], warning["subscribers"]) == (Path("subscriptions.toml"), "api, feed.lms")
    # When the relay has the same file, then there is nothing to say, and a new difference is said
    Numberer(engine, older, poll_s=60).store()
    logged.clear()
    assert comparison.look(differ) == []
    assert logged == []


def test_who_looks_while_the_database_is_away_looks_again(logged: list[EventDict]) -> None:
    with disposed("postgresql://127.0.0.1:1/none") as away:
        comparison = Comparison(away, Path("subscriptions.toml"), Subscriptions())
        assert comparison.look(["feed.lms"]) == ["feed.lms"]
    assert logged == []


def test_a_process_compares_until_it_is_stopped(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparing, "FIRST_AFTER_S", 0)
    stopping, looked = threading.Event(), []

    def look(self: Comparison, warned_of: list[str]) -> list[str]:
        looked.append(warned_of)
        stopping.set()
        return ["feed.lms"]

    monkeypatch.setattr(Comparison, "look", look)
    Comparison(engine, Path("subscriptions.toml"), Subscriptions()).run(stopping)
    assert looked == [[]]


def test_who_is_taken_out_loses_the_cursor(engine: Engine) -> None:
    store(engine, "feed.first", "feed.second")
    tell(engine, 1)
    assert store(engine, "feed.second") == ["feed.first"]
    number(engine)
    store(engine, "feed.first", "feed.second")
    assert cursors(engine)["feed.first"] == last(engine)


def test_one_process_at_a_time_serves_a_subscriber(engine: Engine) -> None:
    store(engine, "feed.lms")
    with engine.begin() as connection:
        taken = subscribers.take(connection, "feed.lms", "one", LEASE_S)
        assert subscribers.take(connection, "feed.lms", "two", LEASE_S) is None
        assert subscribers.take(connection, "feed.none", "two", LEASE_S) is None
        assert taken is not None
        tenure, cursor = taken
        # When its lease has ended, then another one takes over, with a later epoch
        connection.execute(text("UPDATE subscribers SET lease_until = now() - interval '1 s'"))
        successor = subscribers.take(connection, "feed.lms", "two", LEASE_S)
        assert successor is not None
        assert successor[0].epoch > tenure.epoch
        # and the first one moves nothing any more
        assert subscribers.move(connection, tenure, cursor, cursor + 1, LEASE_S) is None
        assert subscribers.move(connection, successor[0], cursor, cursor + 1, LEASE_S) == cursor + 1


def test_an_epoch_is_above_those_of_before_a_restore(engine: Engine) -> None:
    store(engine, "feed.lms")
    with engine.begin() as connection:
        before = subscribers.take(connection, "feed.lms", "one", LEASE_S)
        connection.execute(text("UPDATE subscribers SET epoch = 0, owner = NULL, lease_until = NULL"))
        after = subscribers.take(connection, "feed.lms", "two", LEASE_S)
    assert before is not None
    assert after is not None
    assert after[0].epoch > before[0].epoch


def test_a_replay_wins_over_the_publisher_that_is_at_work(engine: Engine) -> None:
    store(engine, "feed.lms")
    tell(engine, 1, 2)
    number(engine)
    with engine.begin() as connection:
        taken = subscribers.take(connection, "feed.lms", "one", LEASE_S)
        assert taken is not None
        tenure, cursor = taken
        end = subscribers.move(connection, tenure, cursor, last(engine), LEASE_S)
        assert end is not None
        # When the cursor is set back while a batch is on its way, then the batch does not move it on
        assert subscribers.replay(connection, "feed.lms", cursor) is None
        assert subscribers.move(connection, tenure, end, end, LEASE_S) == cursor


def test_a_replay_of_what_is_not_there(engine: Engine) -> None:
    store(engine, "feed.lms", "api")
    tell(engine, 1, 2)
    number(engine)
    with engine.begin() as connection:
        end = event_log.ends(connection).position
        assert subscribers.replay(connection, "feed.lms", end + 1) == (
            f"the log has the positions after 0, up to {end}"
        )
        for name in ("feed.none", "api"):
            assert subscribers.replay(connection, name, end) == (
                f"there is no subscriber {name} with a cursor; there are: feed.lms"
            )


def test_how_far_behind(engine: Engine) -> None:
    store(engine, "feed.lms", "api")
    tell(engine, 1, 2)
    number(engine)
    tell(engine, 3)
    with engine.begin() as connection:
        taken = subscribers.take(connection, "feed.lms", "one", LEASE_S)
        assert taken is not None
        subscribers.release(connection, taken[0], "away")
    with engine.begin() as connection:
        [standing] = subscribers.standings(connection)
        assert (standing.name, standing.behind, standing.reason) == ("feed.lms", 3, "away")
        since = standing.failing_since
        # When it fails again, then it has failed since then; when it works, then nothing is wrong
        taken = subscribers.take(connection, "feed.lms", "one", LEASE_S)
        assert taken is not None
        subscribers.release(connection, taken[0], "still away")
        [standing] = subscribers.standings(connection)
        assert (standing.failing_since, standing.reason) == (since, "still away")
        taken = subscribers.take(connection, "feed.lms", "one", LEASE_S)
        assert taken is not None
        subscribers.move(connection, taken[0], taken[1], taken[1], LEASE_S)
        [standing] = subscribers.standings(connection)
        assert (standing.failing_since, standing.reason) == (None, None)


def behind(engine: Engine) -> int:
    with engine.begin() as connection:
        [standing] = subscribers.standings(connection)
        return standing.behind


def test_a_subscriber_is_no_further_behind_than_is_counted(engine: Engine) -> None:
    # Given events with positions, as many without one, and a gap as after a restore
    store(engine, "feed.lms")
    tell(engine, *range(7))
    number(engine)
    with engine.begin() as connection:
        connection.execute(text("UPDATE events SET position = position + 1000000 WHERE position > 4"))
    tell(engine, *range(7))
    # Then they are counted one by one
    assert behind(engine) == 14
    # When there are more than is counted, then as many are told of as are counted
    with engine.begin() as connection:
        connection.execute(text(MANY), {"rows": subscribers.COUNTED_BEHIND})
    assert behind(engine) == subscribers.COUNTED_BEHIND


# --- pruning -----------------------------------------------------------------------------------------------


@pytest.fixture
def old_log(engine: Engine) -> Engine:
    """Three old events and a new one, and a subscriber who has passed them all."""
    store(engine, "feed.lms", "api")
    now = datetime.now(UTC)
    with engine.begin() as connection:
        event_log.write(connection, [news(size=size, time=now - 40 * DAY) for size in (1, 2, 3)])
        event_log.write(connection, [news(size=4, time=now)])
        event_log.number(connection)
        connection.execute(text("UPDATE subscribers SET position = (SELECT position FROM event_log)"))
        connection.execute(text("UPDATE subscribers SET position = NULL WHERE name = 'api'"))
    return engine


def pruned(engine: Engine) -> list[int]:
    """Prune, and return the sizes of the events that are left."""
    with engine.begin() as connection:
        event_log.prune(connection, 30 * DAY)
    with engine.begin() as connection:
        return [size for _, size in log(connection)]


def test_what_is_old_and_passed_is_removed(old_log: Engine) -> None:
    with old_log.begin() as connection:
        positions = [position for position, _ in log(connection)]
    assert pruned(old_log) == [4]
    with old_log.begin() as connection:
        ends = event_log.ends(connection)
    assert (ends.pruned_to, ends.position) == (positions[2], positions[3])
    assert pruned(old_log) == [4]


def test_what_a_subscriber_has_not_passed_stays(old_log: Engine) -> None:
    with old_log.begin() as connection:
        first = log(connection)[0][0]
        assert subscribers.replay(connection, "feed.lms", first) is None
    assert pruned(old_log) == [2, 3, 4]


def test_an_event_with_an_open_delivery_stays_and_what_comes_after_it(old_log: Engine) -> None:
    with old_log.begin() as connection:
        event_id = event_log.read(connection, 0)[1].id
        connection.execute(
            text(
                "INSERT INTO effects (id, kind, state, payload, source, command_id, event_id, subscriber) VALUES "
                "(gen_random_uuid(), 'deliver_event', 'failed', '{}', '/x', 'x', :event, 'webhook.acme')"
            ),
            {"event": event_id},
        )
    assert pruned(old_log) == [2, 3, 4]
    with old_log.begin() as connection:
        connection.execute(text("UPDATE effects SET state = 'cancelled'"))
    assert pruned(old_log) == [4]


def test_without_subscribers_the_log_is_pruned_by_age(old_log: Engine) -> None:
    store(old_log)
    assert pruned(old_log) == [4]


def test_it_is_noted_up_to_which_moment_events_may_be_gone(old_log: Engine) -> None:
    notes = text("SELECT before < now() - interval '29 days' FROM pruned WHERE what = 'events'")
    with old_log.begin() as connection:
        assert event_log.prune(connection, 50 * DAY) == 0
        assert connection.scalar(notes) is None
        assert event_log.prune(connection, 30 * DAY) == 3
        assert connection.scalar(notes) is True
