"""Positions: no gap and no double, in the order of the commits, also after a restore."""

import random
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from sqlalchemy import Connection, Engine, text

from db import event_log
from events.cloudevent import Event
from tests.integration.feeds.conftest import log, news, number, tell

WRITERS = 2
EVENTS_EACH = 100
HUNDRED = 100
OPEN_AT_ONCE = 30
NUMBERED_IN_BETWEEN = 0.3


def test_positions_have_no_gaps(engine: Engine) -> None:
    tell(engine, 1, 2)
    assert number(engine) == 2
    # A numberer whose transaction is rolled back gives its positions back
    tell(engine, 3)
    with engine.connect() as connection:
        assert event_log.number(connection) == 1
        connection.rollback()
    tell(engine, 4)
    assert number(engine) == 2
    assert number(engine) == 0
    with engine.begin() as connection:
        events = log(connection)
    first = events[0][0]
    assert events == [(first, 1), (first + 1, 2), (first + 2, 3), (first + 3, 4)]


def test_what_commits_late_gets_a_late_position(engine: Engine) -> None:
    # Given an event that was written first and is committed last
    with engine.connect() as slow:
        event_log.write(slow, [news(size=1)])
        tell(engine, 2)
        assert number(engine) == 1
        slow.commit()
    assert number(engine) == 1
    # Then whoever reads on from the first position finds it
    with engine.begin() as connection:
        [(first, size), (second, late)] = log(connection)
        assert (size, late, second) == (2, 1, first + 1)
        assert log(connection, after=first) == [(second, 1)]


def test_a_second_numberer_waits_for_the_first(engine: Engine) -> None:
    tell(engine, 1)
    with engine.connect() as first, ThreadPoolExecutor() as pool:
        assert event_log.number(first) == 1
        tell(engine, 2)
        second = pool.submit(number, engine)
        # It waits for the lock, and numbers only what the first one has left
        while not _somebody_waits(engine):
            assert not second.done()
        first.commit()
        assert second.result() == 1
    with engine.begin() as connection:
        assert [size for _, size in log(connection)] == [1, 2]


def _somebody_waits(engine: Engine) -> bool:
    query = text("SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%event_log%'")
    with engine.begin() as connection:
        return connection.execute(query).first() is not None


def write(engine: Engine, writer: int) -> None:
    for turn in range(EVENTS_EACH):
        with engine.begin() as connection:
            event_log.write(connection, [news(user_id=str(writer), size=turn)])


def keep_numbering(engine: Engine, done: threading.Event) -> None:
    while not done.is_set() or number(engine):
        number(engine)


@dataclass
class Reader:
    """Reads by the cursor alone, as soon as there are positions."""

    engine: Engine
    read: list[tuple[int, int]] = field(default_factory=list)
    """(position, size) of each event."""

    def read_on(self) -> None:
        number(self.engine)
        with self.engine.begin() as connection:
            self.read += log(connection, after=self.read[-1][0] if self.read else 0)


def keep_reading(engine: Engine, how_many: int) -> list[Event]:
    """Read by the cursor alone."""
    read: list[Event] = []
    while len(read) < how_many:
        with engine.begin() as connection:
            read += event_log.read(connection, read[-1].position if read else 0)
    return read


def test_a_reader_misses_nothing_while_many_commit(engine: Engine) -> None:
    # Given many who write, two who number, and one who reads
    done = threading.Event()
    everything = WRITERS * EVENTS_EACH
    with ThreadPoolExecutor(WRITERS + 3) as pool:
        numberers = [pool.submit(keep_numbering, engine, done) for _ in range(2)]
        reader = pool.submit(keep_reading, engine, everything)
        for writing in [pool.submit(write, engine, writer) for writer in range(WRITERS)]:
            writing.result()
        done.set()
        for numbering in numberers:
            numbering.result()
        read = reader.result()
    # Then it has read each once, without a gap, and each writer's in the order of their commits
    first = read[0].position
    assert [one.position for one in read] == list(range(first, first + everything))
    turns: dict[str | None, list[int]] = {}
    for one in read:
        turns.setdefault(one.user_id, []).append(one.data["size"])
    assert turns == {str(writer): list(range(EVENTS_EACH)) for writer in range(WRITERS)}


def test_a_reader_misses_nothing_of_a_hundred_writers(engine: Engine) -> None:
    # Given a hundred writers, whose transactions overlap and end in another order than they began in
    chance = random.Random(14)
    reader = Reader(engine)
    open_ones: list[Connection] = []

    def commit_one() -> None:
        with open_ones.pop(chance.randrange(len(open_ones))) as connection:
            connection.commit()
        if chance.random() < NUMBERED_IN_BETWEEN:
            reader.read_on()

    # When they write and commit, and somebody numbers and reads in between
    for writer in range(HUNDRED):
        connection = engine.connect()
        open_ones.append(connection)
        event_log.write(connection, [news(size=writer)])
        if len(open_ones) > OPEN_AT_ONCE:
            commit_one()
    while open_ones:
        commit_one()
    reader.read_on()
    # Then the reader has each once, without a gap
    positions, writers = zip(*reader.read, strict=True)
    assert positions == tuple(range(positions[0], positions[0] + HUNDRED))
    assert writers != tuple(range(HUNDRED))
    assert sorted(writers) == list(range(HUNDRED))


def test_after_a_restore_positions_jump_forward(engine: Engine) -> None:
    # Given a log whose subscribers have seen more than it remembers, because it is a backup
    tell(engine, 1)
    number(engine)
    with engine.begin() as connection:
        seen = event_log.ends(connection).position
        connection.execute(text("UPDATE event_log SET position = 7, server_run = 'before the restore'"))
        connection.execute(text("UPDATE events SET position = 7"))
    # When it goes on, then above all that they have seen, and without gaps from there
    tell(engine, 2, 3)
    number(engine)
    with engine.begin() as connection:
        (old, _), (second, _), (third, _) = log(connection)
    assert old == 7 < seen < second
    assert third == second + 1


def test_a_clock_that_was_set_back_changes_nothing(engine: Engine) -> None:
    ahead = 2**60
    with engine.begin() as connection:
        connection.execute(text("UPDATE event_log SET position = :ahead"), {"ahead": ahead})
    tell(engine, 1)
    number(engine)
    with engine.begin() as connection:
        assert log(connection) == [(ahead + 1, 1)]
