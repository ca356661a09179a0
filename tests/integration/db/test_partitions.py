"""Partitions: tables are divided while others write, nothing is lost or doubled, and old periods go as a whole."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import count
from typing import Any
from uuid import UUID, uuid4

import pytest
from alembic import op
from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError, IntegrityError
from structlog.testing import capture_logs

from db import (
    batch,
    deliveries,
    dropping,
    effects,
    event_log,
    migrate,
    offers,
    partitioning,
    partitions,
    parts,
    totals,
)
from db.batch import Needs
from db.connect import looking, make_engine
from db.dropping import Dropped
from db.inbox import Arrival
from db.partitions import GROUPS, KEYS, By, PartitionsError, Period, lowest_id, moment_of
from db.prepared import SESSION_SETTINGS
from db.prune import Removed
from db.shards import Renewal, ensure_shards, take
from db.states import TryResult
from events.commands import Fingerprint
from invigilator.acts import partitions as acts
from invigilator.acts.actor import Actor, Via
from tests import sample_commands as c
from tests.integration.db.test_plans import Explained
from worker import pruning
from worker.commands.batches import Batches
from worker.commands.handler import Handler
from worker.kinds import EffectKind
from worker.policies import Policies

HANDLER = Handler(Policies(), instructor=True)
BEGUN = datetime(2026, 1, 15, tzinfo=UTC)
FEBRUARY, MARCH, APRIL, MAY = (datetime(2026, month, 1, tzinfo=UTC) for month in (2, 3, 4, 5))
DAY = timedelta(days=1)
OLD = Period(2026, 3)
"""The first period with a partition of its own: what began in January has the first one up to March."""
NUMBERS = count(1)
PERSON = Actor("ada", is_claimed=False, via=Via.API, origin=None)


def handle(engine: Engine, *received: Any) -> None:
    with engine.begin() as connection:
        c.handle(HANDLER, connection, received)


def execute(engine: Engine, statement: str, **values: Any) -> Any:
    with engine.begin() as connection:
        result = connection.execute(text(statement), values)
        return result.all() if result.returns_rows else result.rowcount


def rows_of(engine: Engine, table: str) -> list[Any]:
    return list(execute(engine, f"SELECT * FROM {table} ORDER BY 1, 2"))


def divide(engine: Engine, by: By = By.MONTH, now: datetime = BEGUN) -> None:
    for tables in GROUPS:
        for step in steps(tables, by, now):
            pruning.patiently(engine, step)


def steps(
    tables: Sequence[str], by: By = By.MONTH, now: datetime = BEGUN
) -> list[Callable[[Connection], None]]:
    return [
        lambda connection: partitioning.bound(connection, tables, by, now),
        *(lambda connection, one=table: partitioning.validate(connection, one) for table in tables),
        lambda connection: partitioning.divide(connection, tables, by, now),
    ]


def owe(
    engine: Engine, state: str, at: datetime, *, target: str | None = None, order_key: str | None = None
) -> UUID:
    """An effect with a try that came to be owed then."""
    effect_id = UUID(int=lowest_id(at).int + next(NUMBERS))
    execute(
        engine,
        """
        INSERT INTO effects (id, kind, state, user_id, target, order_key, payload, source, command_id, tries,
            created_at, due_at, lease_until, done_at, dropped_at)
        VALUES (:id, 'set_credit_status', :state, '1', :target, :order_key, '{}', '/tests', 'x', 1, :at, :at,
            CASE WHEN :state = 'running' THEN now() + interval '1 h' END,
            CASE WHEN :state = 'done' THEN CAST(:at AS timestamptz) END,
            CASE WHEN :state IN ('superseded', 'cancelled') THEN CAST(:at AS timestamptz) END)
        """,
        id=effect_id,
        state=state,
        target=target,
        order_key=order_key,
        at=at,
    )
    execute(
        engine,
        "INSERT INTO tries (effect_id, number, started_at, finished_at, result) VALUES (:id, 1, :at, :at, 'done')",
        id=effect_id,
        at=at,
    )
    return effect_id


def places(engine: Engine, table: str = "effects") -> dict[UUID, str]:
    """In which partition each row is, by the ids."""
    return dict(execute(engine, f"SELECT {KEYS[table]}, tableoid::regclass::text FROM {table}"))


def drop(engine: Engine, tables: Sequence[str], part: str, before: datetime = MAY) -> Dropped:
    with engine.begin() as connection:
        rows = dropping.count(connection, tables, part, before)
        return dropping.drop(connection, tables, part, before, rows)


@pytest.fixture
def record(engine: Engine) -> Engine:
    """Learners with an attempt each, and what follows from that."""
    setup = [c.course(), c.exam("A"), c.learner("1"), c.learner("2"), c.create("A", "1"), c.create("A", "2")]
    handle(engine, *(c.received(one, f"setup-{number}") for number, one in enumerate(setup)))
    handle(engine, c.received(c.update("A", "submitted", "1"), "first"))
    return engine


@pytest.fixture
def divided(engine: Engine) -> Engine:
    divide(engine)
    return engine


# --- the words ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "starts", "following"),
    [
        ("2026_12", datetime(2026, 12, 1, tzinfo=UTC), "2027_01"),
        ("2026", datetime(2026, 1, 1, tzinfo=UTC), "2027"),
    ],
)
def test_periods(said: str, starts: datetime, following: str) -> None:
    period = Period.read(said)
    assert period is not None
    assert (str(period), period.start, str(period.next())) == (said, starts, following)
    assert Period.of(starts, period.by) == period
    assert period < period.next()
    assert moment_of(lowest_id(starts)) == starts


@pytest.mark.parametrize("said", ["first", "rest", "2026_1", "x"])
def test_what_is_no_period(said: str) -> None:
    assert Period.read(said) is None


# --- dividing ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("by", By)
def test_what_is_there_stays_and_numbers_go_on(record: Engine, by: By) -> None:
    before = {table: rows_of(record, table) for table in KEYS}
    indexes = index_names(record)
    now = datetime.now(UTC)
    divide(record, by, now)
    # Then all rows are there, in the first partitions
    assert {table: rows_of(record, table) for table in KEYS} == before
    assert before["effects"]
    assert before["events"] == []
    assert set(places(record).values()) == {"effects_first"}
    # And every index of a table that may be one of a divided table
    assert index_names(record) == {(table, name) for table, name in indexes if not name.startswith("uq_")}
    # And new rows get later numbers, and new partitions of commands
    handle(record, c.received(c.update("A", "submitted", "2"), "second"))
    assert max(row.sequence for row in rows_of(record, "effects")) > max(
        row.sequence for row in before["effects"]
    )
    newest = execute(record, "SELECT tableoid::regclass::text FROM inbox ORDER BY id DESC LIMIT 1")
    assert newest == [(f"inbox_{Period.of(now, by)}",)]
    with record.begin() as connection:
        found = partitions.read(connection)
    assert (found.by, found.lacking(), list(partitions.missing(found))) == (by, [], [])


def index_names(engine: Engine) -> set[Any]:
    tables = "SELECT tablename, indexname FROM pg_indexes WHERE tablename = ANY (:tables)"
    return set(map(tuple, execute(engine, tables, tables=list(KEYS))))


@pytest.mark.parametrize("tables", GROUPS, ids=str)
def test_whoever_begins_again_goes_on(record: Engine, tables: Sequence[str]) -> None:
    # Given somebody who is killed after each of the steps, and begins anew
    before = [rows_of(record, table) for table in tables]
    number = len(steps(tables))
    for done in range(number):
        for step in steps(tables, now=datetime.now(UTC))[:done]:
            pruning.patiently(record, step)
        # Then everybody goes on meanwhile
        handle(record, c.received(c.learner(f"while-{done}"), f"while-{done}"))
    for step in steps(tables, now=datetime.now(UTC)):
        pruning.patiently(record, step)
    for old, table in zip(before, tables, strict=True):
        now = rows_of(record, table)
        assert [row for row in now if row in old] == old
    with record.begin() as connection:
        assert not any(partitioning.begun(connection, table) for table in tables)
        assert partitions.read(connection).is_divided(tables[0])


def test_a_step_that_is_killed_leaves_nothing(record: Engine) -> None:
    tables = GROUPS[2]
    for step in steps(tables)[:-1]:
        pruning.patiently(record, step)
    with record.connect() as connection:
        steps(tables)[-1](connection)
        connection.rollback()
    # Then numbers go on as before, so that rows have a place
    handle(record, c.received(c.learner("3"), "after"))
    with record.begin() as connection:
        assert not partitions.read(connection).partitions


def test_ids_that_do_not_tell_the_time_are_refused(record: Engine) -> None:
    execute(
        record,
        "INSERT INTO events (id, type, time, data) VALUES (:id, 'x', now(), '{}')",
        id=UUID(int=2**127),
    )
    bound, validate, _ = steps(("events",))
    pruning.patiently(record, bound)
    with pytest.raises(PartitionsError, match="events has ids that are no UUIDs of version 7"):
        pruning.patiently(record, validate)


def test_everybody_waits_while_an_unfinished_dividing_refuses_new_ids(record: Engine) -> None:
    # Given somebody who began in January and was killed, so that ids of today are refused
    pruning.patiently(record, steps(GROUPS[0])[0])
    with record.begin() as connection:
        ensure_shards(connection, 1)
        fence = take(connection, 0, "me", 600)
    assert fence is not None
    batches = Batches(record, HANDLER, 600)
    items = [
        c.received(one, f"late-{n}")
        for n, one in enumerate([c.update("A", "submitted", "2"), c.learner("9")])
    ]
    # Then no command is given up, and none overtakes another
    with pytest.raises(DBAPIError, match="ck_effects_first"):
        batches.commit(fence, items)
    assert rows_of(record, "quarantine") == []
    # When the owner's relay makes partitions, then it takes the CHECK away
    assert pruning.make_partitions(record) == []
    with record.begin() as connection:
        assert not any(partitioning.begun(connection, table) for table in KEYS)
    batches.commit(fence, items)


@pytest.mark.parametrize(
    ("made", "said"),
    [
        ("CREATE VIEW mine AS SELECT id FROM effects", r"the view mine \(effects\)"),
        ("CREATE PUBLICATION mine FOR TABLE inbox", r"the publication mine \(inbox\)"),
        ("CREATE POLICY mine ON events", r"the policy mine \(events\)"),
        ("GRANT SELECT (id) ON events TO PUBLIC", r"a grant on the column id \(events\)"),
        ("CREATE TABLE mine (id uuid REFERENCES effects)", r"a foreign key of the table mine \(effects\)"),
    ],
)
def test_what_a_site_has_hung_on_a_table_keeps_all_from_being_divided(
    engine: Engine, made: str, said: str
) -> None:
    execute(engine, made)
    with pytest.raises(PartitionsError, match=said):
        list(acts.begin(engine, PERSON, By.MONTH, None))
    with engine.begin() as connection:
        assert not any(partitioning.begun(connection, table) for table in KEYS)
        assert not partitions.read(connection).partitions


def test_a_dividing_that_was_just_begun_is_left_alone(record: Engine) -> None:
    for tables in GROUPS:
        pruning.patiently(record, steps(tables, now=datetime.now(UTC))[0])
    pruning.make_partitions(record)
    with record.begin() as connection:
        assert all(partitioning.begun(connection, table) for table in KEYS)


@pytest.mark.parametrize("step", ["validate", "divide"])
def test_a_dividing_that_fails_leaves_the_tables_as_they_were(
    record: Engine, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def fail(connection: Connection, *_: Any, **__: Any) -> None:
        connection.execute(text("SELECT 1 / 0"))

    monkeypatch.setattr(partitioning, step, fail)
    with pytest.raises(DBAPIError):
        list(acts.begin(record, PERSON, By.MONTH, None))
    with record.begin() as connection:
        assert not any(partitioning.begun(connection, table) for table in KEYS)


def test_nothing_is_lost_or_doubled_while_tables_are_divided(record: Engine, database_url: str) -> None:
    # Given a consumer that has prepared its statements, and commands that come twice each
    with record.begin() as connection:
        ensure_shards(connection, 1)
        fence = take(connection, 0, "me", 600)
    assert fence is not None
    engine = make_engine(database_url, application_name="test", session_settings=SESSION_SETTINGS)
    batches = Batches(engine, HANDLER, 600)
    done, divided = [], threading.Event()

    def flow() -> None:
        for number in count():
            items = [c.received(c.learner(f"n{one}"), f"flow-{one}") for one in (number, max(0, number - 3))]
            batches.commit(fence, items)
            done.append(number)
            if divided.is_set() and number > 20:
                return

    # When the tables are divided meanwhile, and another period of commands begins
    with ThreadPoolExecutor() as threads:
        flowing = threads.submit(flow)
        try:
            divide(record, now=datetime.now(UTC))
            for part in ("2030", "2031"):
                pruning.patiently(record, partial(partitions.begin_commands, part=part))
        finally:
            divided.set()
        flowing.result()
    engine.dispose()
    # Then each command was handled once
    seen = [row.command_id for row in rows_of(record, "inbox") if row.command_id.startswith("flow-")]
    assert sorted(seen) == sorted(f"flow-{number}" for number in done)
    assert len(rows_of(record, "outcomes")) == len(rows_of(record, "inbox"))


# --- waiting for each other --------------------------------------------------------------------------------

Step = Callable[[Connection], object]
MODES = (
    "AccessShareLock",
    "RowShareLock",
    "RowExclusiveLock",
    "ShareUpdateExclusiveLock",
    "ShareLock",
    "ShareRowExclusiveLock",
    "ExclusiveLock",
    "AccessExclusiveLock",
)
"""Of the locks on a table, the weakest first."""


@pytest.fixture(params=["begin", "make", "drop"])
def what(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def step(record: Engine, what: str, monkeypatch: pytest.MonkeyPatch) -> Step:
    """Something for which everybody leaves the effects. It is tried once, and does not give up early."""
    now = datetime.now(UTC)
    *begin, divide = steps(GROUPS[0], now=now)
    for one in begin:
        pruning.patiently(record, one)
    if what != "begin":
        pruning.patiently(record, divide)
    monkeypatch.setattr(pruning, "LOCK_TRIES", 1)
    monkeypatch.setattr(partitions, "_LIMIT_WAITS", "SET LOCAL lock_timeout = '60s'")
    if what == "begin":
        return divide
    if what == "make":
        return partial(partitions.make, tables=GROUPS[0], period=Period(2040, 1))
    last = Period.of(now, By.MONTH).next().next()
    kept = owe(record, "failed", last.start)
    execute(
        record, "UPDATE effects SET attempt_id = (SELECT id FROM attempts LIMIT 1) WHERE id = :id", id=kept
    )
    rows = {"effects": 1, "tries": 1}
    return lambda connection: dropping.drop(connection, GROUPS[0], str(last), now, rows)


def locked(connection: Connection, table: str) -> set[str]:
    """How the transaction has locked a table."""
    modes = "SELECT mode FROM pg_locks WHERE relation = CAST(:table AS regclass) AND pid = pg_backend_pid()"
    return set(connection.execute(text(modes), {"table": table}).scalars())


def test_a_worker_that_is_waited_for_gets_on(record: Engine, step: Step) -> None:
    # Given a worker between its look at an effect and its look at the attempt
    with ThreadPoolExecutor() as threads, record.connect() as worker:
        worker.execute(text("SELECT FROM effects FOR UPDATE"))
        stepping = threads.submit(pruning.patiently, record, step)
        wait_for_lock(record, 1, stepping)
        # Then it does not wait for who waits for it
        worker.execute(text("SET LOCAL lock_timeout = '100ms'"))
        assert worker.execute(text("SELECT count(*) FROM attempts")).scalar_one() == 2
        worker.commit()
        stepping.result()


def test_a_batch_that_is_waited_for_gets_on(record: Engine, step: Step) -> None:
    # Given a batch that has read
    with record.begin() as connection:
        ensure_shards(connection, 1)
        fence = take(connection, 0, "me", 60)
    assert fence is not None
    effect_id = UUID(int=lowest_id(datetime.now(UTC)).int + next(NUMBERS))
    owed = """
    INSERT INTO effects (id, kind, state, attempt_id, user_id, payload, source, command_id)
    SELECT :id, 'send_email', 'pending', id, user_id, '{}', '/lms', '1' FROM attempts WHERE user_id = '1'
    """
    with ThreadPoolExecutor() as threads, record.connect() as writing:
        begun = batch.begin(writing, Renewal(fence, 60, 0), [arrival("1")], ["1"], Needs(user_ids={"1"}))
        assert begun is not None
        assert len(begun.found.attempts) == 1
        stepping = threads.submit(pruning.patiently, record, step)
        wait_for_lock(record, 1, stepping)
        # Then it writes
        writing.execute(text("SET LOCAL lock_timeout = '100ms'"))
        writing.execute(text("UPDATE attempts SET version = version WHERE user_id = '1'"))
        writing.execute(text(owed), {"id": effect_id})
        writing.commit()
        stepping.result()
    assert effect_id in places(record)


def test_who_begins_while_others_are_waited_for_does_not_get_between(record: Engine, step: Step) -> None:
    def cascade() -> None:
        with record.begin() as connection:
            batch.lock_and_read(connection, ["2"], Needs(user_ids={"2"}))

    with ThreadPoolExecutor() as threads, record.connect() as worker:
        worker.execute(text("SELECT FROM effects FOR UPDATE"))
        stepping = threads.submit(pruning.patiently, record, step)
        wait_for_lock(record, 1, stepping)
        # When a batch and a cascade begin, which read attempts before effects
        later = [
            threads.submit(handle, record, c.received(c.update("A", "verified", "1"), "later")),
            threads.submit(cascade),
        ]
        wait_for_lock(record, 3, stepping, *later)
        worker.commit()
        stepping.result()
        for one in later:
            one.result()


def test_no_step_locks_attempts_more_than_it_has_said(record: Engine, what: str, step: Step) -> None:
    strongest = {"begin": "AccessExclusiveLock", "make": "ShareRowExclusiveLock", "drop": "RowShareLock"}
    with record.connect() as connection:
        step(connection)
        assert max(locked(connection, "attempts"), key=MODES.index) == strongest[what]


# --- what indexes of a whole table did ---------------------------------------------------------------------


def arrival(command_id: str) -> Arrival:
    return Arrival(("/lms", command_id), "x", Fingerprint(b"x" * 32, None))


@pytest.mark.parametrize("prepares", [False, True])
def test_a_command_is_seen_once_across_the_beginning_of_a_period(
    divided: Engine, database_url: str, prepares: bool
) -> None:
    # Given two processes, of which one has inserted a command and not committed
    with divided.begin() as connection:
        ensure_shards(connection, 2)
        fences = [take(connection, shard, "me", 60) for shard in range(2)]
    renewals = [Renewal(fence, 60, 0) for fence in fences if fence is not None]
    settings = SESSION_SETTINGS if prepares else ""
    engine = make_engine(database_url, application_name="test", session_settings=settings)
    with ThreadPoolExecutor() as threads, engine.connect() as first, engine.connect() as second:
        first_begun = batch.begin(first, renewals[0], [arrival("1"), arrival("2")], [], Needs())
        assert first_begun is not None
        assert len(first_begun.inbox_ids) == 2
        # When a period begins, and the other process gets one of them again meanwhile
        switching = threads.submit(
            pruning.patiently, divided, lambda one: partitions.begin_commands(one, "2026_02")
        )
        wait_for_lock(divided, 1)
        waiting = threads.submit(batch.begin, second, renewals[1], [arrival("2"), arrival("3")], [], Needs())
        wait_for_lock(divided, 2)
        first.commit()
        switching.result()
        second_begun = waiting.result()
        second.commit()
    engine.dispose()
    # Then only what is new is entered, in the new partition
    assert second_begun is not None
    assert [key for _, key in second_begun.inbox_ids] == ["3"]
    found = execute(divided, "SELECT command_id, tableoid::regclass::text FROM inbox ORDER BY id")
    assert [tuple(row) for row in found] == [
        ("1", "inbox_2026_01"),
        ("2", "inbox_2026_01"),
        ("3", "inbox_2026_02"),
    ]


def wait_for_lock(engine: Engine, number: int, *waiting: Future[Any]) -> None:
    """Wait until so many sessions wait for locks, or one of those that are to wait has ended."""
    waits = """
    SELECT count(*) FROM pg_locks JOIN pg_database ON pg_database.oid = database
    WHERE NOT granted AND datname = current_database()
    """
    while execute(engine, waits)[0][0] < number and not any(one.done() for one in waiting):
        threading.Event().wait(0.01)


@pytest.mark.parametrize("of", ["target", "order_key"])
def test_one_effect_runs_on_a_target_and_of_an_order_key_whichever_partition_it_is_in(
    divided: Engine, of: str
) -> None:
    ids = [owe(divided, "pending", at, **{of: "one"}) for at in (FEBRUARY, MARCH)]
    assert len(set(places(divided).values())) == 2
    run = text("UPDATE effects SET state = 'running', lease_until = now() WHERE id = :id")
    with divided.connect() as first, divided.connect() as second:
        first.execute(run, {"id": ids[0]})
        # Who comes meanwhile is refused, and does not wait
        with pytest.raises(IntegrityError, match=f"uq_effects_running_{of}|another effect"):
            second.execute(run, {"id": ids[1]})
        second.rollback()
        first.commit()
        # And who comes later, too
        with pytest.raises(IntegrityError):
            second.execute(run, {"id": ids[1]})
        second.rollback()
        first.execute(text("UPDATE effects SET state = 'pending', lease_until = NULL"))
        first.commit()
        second.execute(run, {"id": ids[1]})
        second.commit()


def test_whoever_gets_the_lock_late_sees_what_runs(divided: Engine) -> None:
    # Given a second claim that is held up before it asks for the lock of its target
    ids = [owe(divided, "pending", at, target="one") for at in (FEBRUARY, MARCH)]
    execute(divided, "CREATE SCHEMA slow")
    execute(
        divided,
        """
        CREATE FUNCTION slow.hashtext(text) RETURNS int LANGUAGE sql VOLATILE AS $$
            SELECT pg_catalog.hashtext($1) FROM (SELECT pg_advisory_xact_lock(1)) AS held
        $$
        """,
    )
    run = text("UPDATE effects SET state = 'running', lease_until = now() WHERE id = :id")
    with (
        ThreadPoolExecutor() as threads,
        divided.connect() as first,
        divided.connect() as second,
        divided.connect() as holder,
    ):
        holder.execute(text("SELECT pg_advisory_xact_lock(1)"))
        second.execute(text("SET LOCAL search_path = slow, pg_catalog, public"))
        first.execute(run, {"id": ids[0]})
        claiming = threads.submit(second.execute, run, {"id": ids[1]})
        wait_for_lock(divided, 1)
        # When the first one commits meanwhile, then the second is refused
        first.commit()
        holder.commit()
        with pytest.raises(IntegrityError, match="another effect runs on the target"):
            claiming.result()
        second.rollback()


def test_hot_statements_find_rows_by_an_index_in_each_partition(divided: Engine, database_url: str) -> None:
    kind = EffectKind.SET_CREDIT_STATUS
    ids = [owe(divided, "pending", at, target=f"credit:{at}") for at in (FEBRUARY, MARCH, APRIL)]
    with divided.begin() as connection:
        ensure_shards(connection, 1)
        fence = take(connection, 0, "me", 60)
    assert fence is not None
    engine = make_engine(database_url, application_name="test", session_settings=SESSION_SETTINGS)
    explained = Explained(engine)
    with explained.on("hot"), engine.begin() as connection:
        due = offers.find_due(connection, [kind])
        offers.offer(connection, due, {kind: 10}, 60)
        claims = effects.claim(connection, [effects.Wanted(one, kind, "credit") for one in ids], 60)
        effects.end_tries(connection, [effects.TryEnd(one, 2, TryResult.DONE) for one in claims])
        batch.begin(connection, Renewal(fence, 60, 0), [arrival("1")], ["1"], Needs(user_ids={"1"}))
        event_log.number(connection)
        seen_before = "SELECT FROM inbox WHERE source = '/lms' AND command_id = '1' AND id < 10 * %(period)s"
        connection.exec_driver_sql(seen_before, {"period": partitions.NUMBERS_OF_A_PERIOD})
    engine.dispose()
    assert len(claims) == 3
    read = {
        node["Relation Name"] for plan in explained.plans for node in plan.nodes if "Relation Name" in node
    }
    assert {"effects_first", "effects_2026_03", "effects_rest", "inbox_2026_01"} <= read
    whole = {table for plan in explained.plans for table in plan.whole_tables()}
    assert {table for table in whole if table.startswith(tuple(KEYS))} == set()


# --- dropping ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("states", "stays"),
    [
        (["done", "superseded", "cancelled"], [2]),  # a person may retry the last one
        (["cancelled", "done"], []),
        (["failed", "done", "superseded"], [0, 2]),
        (["pending", "done"], [0, 1]),
        (["done", "failed"], [1]),
        (["cancelled", "cancelled"], [0, 1]),
    ],
)
def test_what_a_later_decision_reads_stays(divided: Engine, states: list[str], stays: list[int]) -> None:
    ids = [
        owe(divided, state, OLD.start + number * DAY, target="credit:1")
        for number, state in enumerate(states)
    ]
    others = [owe(divided, state, OLD.start) for state in ("done", "superseded", "cancelled")]
    assert set(places(divided).values()) == {f"effects_{OLD}"}
    dropped = drop(divided, GROUPS[0], str(OLD))
    kept = {ids[number]: "effects_rest" for number in stays}
    assert places(divided) == kept
    assert places(divided, "tries") == dict.fromkeys(kept, "tries_rest")
    gone = len(ids) + len(others) - len(kept)
    assert dropped.rows == {"effects": gone, "tries": gone}
    assert dropped.kept == ({"effects": len(kept), "tries": len(kept)} if kept else {})
    assert execute(divided, "SELECT what, before FROM pruned") == [("effects", MAY)]


def test_an_older_effect_is_still_overtaken_by_one_of_a_period_that_goes(divided: Engine) -> None:
    # Given a failed and a cancelled one in an older partition, and what overtakes one of them
    failed = owe(divided, "failed", FEBRUARY, target="credit:1")
    cancelled = owe(divided, "cancelled", FEBRUARY, target="credit:2")
    finals = [owe(divided, "done", OLD.start, target=f"credit:{number}") for number in (1, 2, 3)]
    drop(divided, GROUPS[0], str(OLD))
    assert set(places(divided)) == {failed, cancelled, *finals[:2]}
    # When a person retries it, then it does not run
    execute(divided, "UPDATE effects SET state = 'pending', due_at = now() WHERE id = :id", id=failed)
    with divided.begin() as connection:
        kind = EffectKind.SET_CREDIT_STATUS
        assert effects.claim(connection, [effects.Wanted(failed, kind, "credit")], 60) == {failed: None}
    assert execute(divided, "SELECT state FROM effects WHERE id = :id", id=failed) == [("superseded",)]


def test_the_names_stay_under_which_an_older_release_has_told_credit(divided: Engine) -> None:
    setup = [c.course(), c.exam("A"), c.learner("1"), c.create("A", "1")]
    handle(divided, *(c.received(one, f"setup-{number}") for number, one in enumerate(setup)))
    told, other = owe(divided, "done", OLD.start), owe(divided, "done", OLD.start)
    execute(divided, "UPDATE attempts SET credit_owed = true, credit_told = NULL")
    execute(divided, "UPDATE effects SET attempt_id = (SELECT id FROM attempts) WHERE id = :id", id=told)
    drop(divided, GROUPS[0], str(OLD))
    assert told in places(divided)
    assert other not in places(divided)


def test_a_period_with_a_running_effect_stays(divided: Engine) -> None:
    running = owe(divided, "running", OLD.start)
    with pytest.raises(
        PartitionsError, match=f"effects_{OLD} stays: effects of it are running.* 1 .set_credit_status.; "
    ):
        drop(divided, GROUPS[0], str(OLD))
    assert set(places(divided)) == {running}


def test_a_count_that_waited_for_a_period_to_go_is_right(divided: Engine) -> None:
    for state in ("done", "failed"):
        owe(divided, state, OLD.start)
    with divided.connect() as counting, divided.connect() as connection, ThreadPoolExecutor() as threads:
        rows = dropping.count(connection, GROUPS[0], str(OLD), MAY)
        dropping.drop(connection, GROUPS[0], str(OLD), MAY, rows)
        waiting = threads.submit(totals.recount, counting)
        wait_for_lock(divided, 1)
        connection.commit()
        waiting.result()
    with divided.begin() as connection:
        found = totals.read(connection, totals.EFFECTS)
    assert {key[2]: value for key, value in found.items() if value} == {"failed": 1}


def test_nobody_is_stopped_while_the_totals_are_counted(divided: Engine) -> None:
    with divided.begin() as counting:
        key = {"key": totals.RECOUNT_LOCK}
        counting.exec_driver_sql("SELECT pg_advisory_xact_lock(%(key)s)", key)
        with pytest.raises(partitions.BusyError):
            drop(divided, GROUPS[0], str(OLD))
    # Then the drop goes on, and leaves no lock
    drop(divided, GROUPS[0], str(OLD))
    assert execute(divided, "SELECT FROM pg_locks WHERE locktype = 'advisory' AND objid = :key", **key) == []


def test_a_long_reader_is_waited_for_in_short_pieces(
    divided: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given somebody who reads, and pauses that are counted
    pauses: list[float] = []
    monkeypatch.setattr("tenacity.nap.time.sleep", pauses.append)
    monkeypatch.setattr(pruning, "LOCK_TRIES", 5)
    monkeypatch.setattr(pruning, "LOCK_PAUSE_S", 1.0)
    monkeypatch.setattr(pruning, "MOST_LOCK_PAUSE_S", 5.0)
    counted, times = dropping.count, []

    def count_once(*values: Any) -> dict[str, int]:
        times.append(1)
        return counted(*values)

    monkeypatch.setattr(dropping, "count", count_once)
    with divided.connect() as reader:
        reader.execute(text("SELECT count(*) FROM effects"))
        with divided.connect() as connection:
            found = partitions.read(connection)
            connection.rollback()
        with pytest.raises(DBAPIError, match="lock timeout"):
            pruning.drop_old(divided, found, GROUPS[0], APRIL)
    # Then the pauses grow, by a little more than they double, and a part is counted once
    assert [int(pause) for pause in pauses] == [1, 2, 4, 5]
    assert times == [1]


@pytest.mark.parametrize("moved", [GROUPS[0], GROUPS[1]], ids=str)
def test_a_delivery_is_found_though_it_just_moves(
    divided: Engine, database_url: str, moved: Sequence[str]
) -> None:
    now = datetime.now(UTC)
    execute(divided, "INSERT INTO subscribers (name, definition, position) VALUES ('webhook.x', '{}', 1)")
    event, effect = tell(divided, 1, now), owe(divided, "pending", now)
    execute(
        divided,
        "UPDATE effects SET event_id = :event, subscriber = 'webhook.x', kind = 'deliver_event'",
        event=event,
    )
    engine = make_engine(database_url, application_name="test", session_settings=SESSION_SETTINGS)

    def look() -> dict[UUID, deliveries.Owed]:
        with looking(engine) as connection:
            return deliveries.owed(connection, [effect])

    before = look()
    assert before[effect].event is not None
    with ThreadPoolExecutor() as threads, divided.connect() as connection:
        assert partitions.make(connection, moved, Period.of(now, By.MONTH))
        waiting = threads.submit(look)
        wait_for_lock(divided, 1)
        connection.commit()
        assert waiting.result() == before
    engine.dispose()


def test_totals_are_right_after_a_period_went(divided: Engine) -> None:
    for state in ("done", "done", "failed", "cancelled"):
        owe(divided, state, OLD.start)
    with divided.connect() as connection:
        totals.recount(connection)
    removed = pruning.prune(divided, datetime.now(UTC) - MAY, threading.Event())
    assert removed == Removed(effects=3, tries=3)
    with divided.begin() as connection:
        found = totals.read(connection, totals.EFFECTS)
    assert {key[2]: value for key, value in found.items() if value} == {"failed": 1}


def test_what_is_kept_goes_by_pages_when_it_is_finished(divided: Engine) -> None:
    failed = owe(divided, "failed", OLD.start)
    drop(divided, GROUPS[0], str(OLD))
    assert places(divided) == {failed: "effects_rest"}
    execute(divided, "UPDATE effects SET state = 'cancelled', dropped_at = :at", at=MARCH)
    assert pruning.prune(divided, DAY, threading.Event()) == Removed(effects=1, tries=1)
    assert places(divided) == {}


def tell(engine: Engine, position: int | None, at: datetime) -> UUID:
    event_id = UUID(int=lowest_id(at).int + next(NUMBERS))
    execute(
        engine,
        "INSERT INTO events (id, position, type, time, data) VALUES (:id, :position, 'x', :at, '{}')",
        id=event_id,
        position=position,
        at=at,
    )
    execute(engine, "UPDATE event_log SET position = greatest(position, :position)", position=position or 0)
    return event_id


def log(engine: Engine) -> tuple[list[int], int]:
    """The positions that are there, and up to which the log was pruned."""
    there = execute(engine, "SELECT position FROM events ORDER BY position")
    return [row.position for row in there], execute(engine, "SELECT pruned_to FROM event_log")[0][0]


def test_events_go_when_everybody_has_passed_them(divided: Engine) -> None:
    first = tell(divided, 1, FEBRUARY)
    for position, at in ((2, MARCH), (3, MARCH + DAY), (4, APRIL)):
        tell(divided, position, at)
    age = datetime.now(UTC) - APRIL
    # Given a subscriber who has not passed March, and a delivery of February
    execute(divided, "INSERT INTO subscribers (name, definition, position) VALUES ('x', '{}', 2)")
    owed = owe(divided, "pending", FEBRUARY)
    execute(divided, "UPDATE effects SET event_id = :event WHERE id = :id", event=first, id=owed)
    assert pruning.prune_events(divided, age, threading.Event()) == 0
    assert log(divided) == ([1, 2, 3, 4], 0)
    # When the delivery is over, then February goes
    execute(divided, "UPDATE effects SET state = 'done', done_at = now()")
    assert pruning.prune_events(divided, age, threading.Event()) == 1
    assert log(divided) == ([2, 3, 4], 1)
    # And March, when the subscriber has it; and then an event that has no period
    execute(divided, "UPDATE subscribers SET position = 3")
    tell(divided, None, MARCH)
    assert pruning.prune_events(divided, age, threading.Event()) == 0
    execute(divided, "DELETE FROM events WHERE position IS NULL")
    assert pruning.prune_events(divided, age, threading.Event()) == 2
    assert log(divided) == ([4], 3)


def test_events_of_the_rest_stay_for_their_deliveries(
    divided: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_log, "PAGE_ROWS", 2)
    june = datetime(2026, 6, 10, tzinfo=UTC)
    events = [tell(divided, position, june) for position in range(1, 8)]
    for event, state in zip(events, ("pending", "running", "failed", "done"), strict=False):
        owed = owe(divided, state, june)
        execute(divided, "UPDATE effects SET event_id = :event WHERE id = :id", event=event, id=owed)
    execute(divided, "UPDATE event_log SET pruned_to = 7")
    assert pruning.prune_events(divided, DAY, threading.Event()) == 4
    assert log(divided) == ([1, 2, 3], 7)


def test_dropping_events_locks_the_log_before_the_events_as_the_numberer_does(divided: Engine) -> None:
    tell(divided, 1, FEBRUARY)
    with divided.connect() as numberer:
        numberer.execute(text("SELECT FROM event_log FOR UPDATE"))
        numberer.execute(text("SELECT count(*) FROM events"))
        with pytest.raises(DBAPIError, match="SELECT FROM event_log FOR UPDATE"):
            drop(divided, GROUPS[1], "first", APRIL)
        numberer.commit()
    assert drop(divided, GROUPS[1], "first", APRIL).rows == {"events": 1}


def test_commands_go_by_when_they_were_handled(divided: Engine) -> None:
    handle(divided, c.received(c.learner("1"), "old"))
    with divided.begin() as connection:
        partitions.begin_commands(connection, "2026_02")
    handle(divided, c.received(c.learner("2"), "young"))
    assert pruning.prune(divided, DAY, threading.Event()) == Removed()
    execute(divided, "UPDATE outcomes SET handled_at = now() - interval '3 days'")
    # The newest one stays, because it is written to
    assert pruning.prune(divided, DAY, threading.Event()) == Removed(commands=1)
    assert [row.command_id for row in rows_of(divided, "inbox")] == ["young"]
    assert len(rows_of(divided, "outcomes")) == 1


# --- migrating ---


def test_migrations_work_on_divided_tables_as_on_whole_ones(engine: Engine, divided: Engine) -> None:
    context = MigrationContext.configure
    with divided.connect() as connection, Operations.context(context(connection)):
        for _ in range(2):  # a migration that failed is run again
            with context_of().autocommit_block():
                parts.build_index("ix_effects_new", "effects", "(kind) WHERE state = 'failed'")
                parts.build_index("uq_effects_new", "effects", "(source, id)", unique=True)
    names = "SELECT indexname FROM pg_indexes WHERE indexname LIKE '%effects_new%'"
    of_parts = {one.removeprefix("effects") for one in set(tables_of(divided, "effects"))}
    found = {row.indexname for row in execute(divided, names)}
    assert found == {"ix_effects_new"} | {
        f"{one}{part}" for one in ("ix_effects_new", "uq_effects_new") for part in of_parts
    }
    assert execute(
        divided, "SELECT indisvalid FROM pg_index WHERE indexrelid = 'ix_effects_new'::regclass"
    ) == [(True,)]
    # And partitions that are made later have them
    later = Period(2040, 1)
    for tables in GROUPS:
        pruning.patiently(divided, partial(partitions.make, tables=tables, period=later))
    found = {row.indexname for row in execute(divided, names)}
    assert {f"ix_effects_new_{later}", f"uq_effects_new_{later}"} <= found
    for table in KEYS:
        of_part = "SELECT indexname FROM pg_indexes WHERE tablename = :part"
        first, last = (
            {
                row.indexname.removesuffix(f"_{part}")
                for row in execute(divided, of_part, part=f"{table}_{part}")
            }
            for part in ("first", later)
        )
        assert first == last
    with divided.connect() as connection, Operations.context(context(connection)):
        with context_of().autocommit_block():
            parts.drop_index("ix_effects_new", "effects")
            parts.drop_index("uq_effects_new", "effects")
        parts.alter_each("effects", "SET (fillfactor = 90)")
        connection.commit()
    assert execute(divided, names) == []
    # And a unique one that was there before the tables were divided
    with (
        divided.connect() as connection,
        Operations.context(context(connection)),
        context_of().autocommit_block(),
    ):
        parts.drop_index("uq_effects_running_target", "effects")
    unique = "SELECT indexname FROM pg_indexes WHERE indexdef LIKE 'CREATE UNIQUE%effects%(target)%running%'"
    assert execute(divided, unique) == []
    options = "SELECT count(*) FROM pg_class WHERE 'fillfactor=90' = ANY (reloptions)"
    assert execute(divided, options) == [(len(tables_of(divided, "effects")),)]


def context_of() -> MigrationContext:
    return op.get_context()


def tables_of(engine: Engine, table: str) -> list[str]:
    with engine.begin() as connection:
        return [one.name for one in partitions.read(connection).of(table)]


def test_going_back_works_on_divided_tables(divided: Engine, database_url: str) -> None:
    migrate.downgrade(database_url, "0043")
    migrate.upgrade(database_url)
    handle(divided, c.received(c.learner("1"), "one"))


# --- making ------------------------------------------------------------------------------------------------


def test_what_has_no_partition_goes_to_the_rest_until_there_is_one(divided: Engine) -> None:
    now = datetime.now(UTC)
    this = Period.of(now, By.MONTH)
    ids = [owe(divided, state, now) for state in ("done", "running")]
    assert set(places(divided).values()) == {"effects_rest"}
    with divided.begin() as connection:
        lacking = partitions.lacking(connection)
        assert lacking == partitions.read(connection).lacking()
        in_rest = partitions.read(connection).in_rest()
    assert lacking == [f"{table}_{this.next()}" for table in ("effects", "events")]
    assert in_rest == [f"{table}_{this}" for table in ("effects", "events")]
    # While one of them runs, it is not touched
    made = pruning.make_partitions(divided)
    assert f"effects_{this}" not in made
    assert {f"effects_{this.next()}", f"events_{this}", f"tries_{this.next()}", f"inbox_{this}"} <= set(made)
    # Later it gets its place
    execute(divided, "UPDATE effects SET state = 'done', lease_until = NULL, done_at = now()")
    assert pruning.make_partitions(divided) == [f"effects_{this}", f"tries_{this}"]
    assert places(divided) == dict.fromkeys(ids, f"effects_{this}")
    assert set(places(divided, "tries").values()) == {f"tries_{this}"}
    assert pruning.make_partitions(divided) == []


def test_much_that_is_in_the_rest_stays_there(divided: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(partitions, "MOST_MOVED", 1)
    now = datetime.now(UTC)
    this = Period.of(now, By.MONTH)
    for _ in range(2):
        owe(divided, "done", now)
    assert f"effects_{this}" not in pruning.make_partitions(divided)
    assert set(places(divided).values()) == {"effects_rest"}
    # Then nobody is asked for what cannot be made, and nobody waits for another try
    with divided.begin() as connection:
        assert partitions.lacking(connection) == []
        assert partitions.read(connection).in_rest() == [f"effects_{this}"]
    with divided.connect() as connection:
        assert not partitions.make(connection, GROUPS[0], this)
        assert locked(connection, "effects") == set()


def test_who_lists_partitions_with_an_older_snapshot_leaves_out_one_that_went(divided: Engine) -> None:
    part = f"effects_{OLD}"
    with divided.connect() as connection:
        connection.execution_options(isolation_level="REPEATABLE READ")
        connection.execute(text("SELECT count(*) FROM pg_class"))
        lacking = partitions.lacking(connection)
        assert part in {one.name for one in partitions.read(connection).partitions}
        drop(divided, GROUPS[0], str(OLD))
        assert part not in {one.name for one in partitions.read(connection).partitions}
        assert partitions.lacking(connection) == lacking


def test_only_the_owner_makes_and_drops(divided: Engine, database_url: str) -> None:
    role = f"role_{uuid4().hex}"
    execute(divided, f"CREATE ROLE {role}")
    execute(divided, f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {role}")
    other = make_engine(database_url, application_name="test", session_settings=f"-c role={role}")
    try:
        with pytest.raises(PartitionsError, match="by the role that owns the tables"):
            pruning.make_partitions(other)
        # It drops nothing, and removes in pages what has no period
        owe(divided, "failed", OLD.start)
        drop(divided, GROUPS[0], str(OLD))
        execute(divided, "UPDATE effects SET state = 'cancelled', dropped_at = :at", at=MARCH)
        stays = owe(divided, "done", FEBRUARY)
        assert pruning.prune(other, DAY, threading.Event()) == Removed(effects=1, tries=1)
        assert places(divided) == {stays: "effects_first"}
        with capture_logs() as logged:
            pruning.Pruner(other, DAY, DAY).prune(threading.Event())
        assert [one["event"] for one in logged][:1] == ["partitions are left to the owner of the tables"]
        # What the role may do, it may do with a new partition
        pruning.make_partitions(divided)
        handle(other, c.received(c.learner("1"), "one"))
    finally:
        other.dispose()
        execute(divided, f"DROP OWNED BY {role}")
        execute(divided, f"DROP ROLE {role}")


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pruning, "LOCK_PAUSE_S", 0.01)
    monkeypatch.setattr(pruning, "MOST_LOCK_PAUSE_S", 0.1)
