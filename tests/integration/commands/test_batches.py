"""One batch, one transaction: the fence, collisions, and commands that fail."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, create_engine, func, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool
from structlog.typing import EventDict

from db import shards
from db.batch import Found
from db.connect import make_engine
from db.errors import Failure, classify
from db.ids import Receipt, new_receipt
from db.inbox import Handled
from db.models import HandledCommand, QuarantinedMessage, Transition
from db.quarantine import Unreadable
from db.shards import Fence
from events.commands import Command
from events.sharding import MAX_SHARDS
from events.vocabulary import QuarantineCode
from tests import sample_commands as c
from tests.roundtrips import counted
from worker.commands.batches import BadReleaseError, Batches
from worker.commands.decoding import Received
from worker.commands.handler import Handler, ShardLostError, Written
from worker.commands.spans import Item
from worker.commands.unit_of_work import UnitOfWork
from worker.policies import Policies

LEASE_S = 30.0
ADDRESS = "ada@example.org"


@dataclass(frozen=True, slots=True)
class Failing(Handler):
    """A handler in whose transaction something goes wrong, by the command's id."""

    statements: dict[str, str] = field(default_factory=dict)
    bugs: Sequence[str] = ()
    connections: list[Connection] = field(default_factory=list)

    def handle(self, connection: Connection, *batch: Any) -> Written:
        self.connections.append(connection)
        return Handler.handle(self, connection, *batch)

    def decide(
        self, commands: Sequence[tuple[Command, Receipt]], found: Found, now: datetime
    ) -> tuple[UnitOfWork, list[Handled]]:
        for command, _ in commands:
            if command.id in self.bugs:
                raise KeyError(ADDRESS)
            if command.id in self.statements:
                self.connections[-1].execute(text(self.statements[command.id]))
        return Handler.decide(self, commands, found, now)


@pytest.fixture
def fence(engine: Engine) -> Fence:
    with engine.begin() as connection:
        shards.ensure_shards(connection, 1)
        fence = shards.take(connection, 0, "me", LEASE_S)
    assert fence is not None
    return fence


def batches(engine: Engine, **failures: object) -> Batches:
    return Batches(engine, Failing(Policies(), True, **failures), LEASE_S)  # type: ignore[arg-type]


def outcomes(engine: Engine) -> int:
    with engine.begin() as connection:
        return len(connection.execute(select(HandledCommand)).all())


def quarantined(engine: Engine) -> list[tuple[str, str]]:
    with engine.begin() as connection:
        rows = connection.execute(select(QuarantinedMessage.code, QuarantinedMessage.detail))
        return [(row.code, row.detail) for row in rows]


def setup(number: int = 3) -> list[Item]:
    return [c.received(c.exam(str(n)), f"exam-{n}") for n in range(number)]


def test_a_batch_is_committed_and_the_lease_renewed(engine: Engine, fence: Fence) -> None:
    unreadable = Unreadable(QuarantineCode.NOT_JSON, "is no JSON", {}, b"?", new_receipt().at)
    batches(engine).commit(fence, [*setup(), unreadable])
    assert outcomes(engine) == 3
    assert quarantined(engine) == [("not_json", "is no JSON")]


def test_without_the_fence_nothing_is_committed(engine: Engine, fence: Fence) -> None:
    # Given another owner
    with engine.begin() as connection:
        connection.execute(text("UPDATE shards SET lease_until = now() - interval '1s'"))
        assert shards.take(connection, 0, "other", LEASE_S) is not None
    # When the old one comes with a batch, or wants to renew
    ours = batches(engine)
    with pytest.raises(ShardLostError):
        ours.commit(fence, setup())
    with pytest.raises(ShardLostError):
        ours.renew(fence)
    # Then nothing of it is committed
    assert outcomes(engine) == 0


def test_a_shard_that_is_lost_while_a_batch_is_taken_apart_stays_lost(engine: Engine, fence: Fence) -> None:
    # Given a batch that fails, after which another owner takes the shard
    steal = "UPDATE shards SET epoch = epoch + 1; COMMIT; SELECT 1/0"
    ours = batches(engine, statements={"exam-1": steal})
    # When it is taken apart, then nothing of it is committed
    with pytest.raises(ShardLostError):
        ours.commit(fence, setup()[1:])
    assert (outcomes(engine), quarantined(engine)) == (0, [])


def test_renewing(engine: Engine, fence: Fence) -> None:
    with engine.begin() as connection:
        connection.execute(text("UPDATE shards SET lease_until = now() - interval '1s'"))
    batches(engine).renew(fence)
    with engine.begin() as connection:
        assert shards.take(connection, 0, "other", LEASE_S) is None


def test_a_collision_is_run_again(engine: Engine, fence: Fence, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a batch that meets another transaction twice
    collisions = iter(["40P01", "55P03"])
    handle = Handler.handle

    def colliding(self: Handler, connection: Connection, *rest: object) -> Written:
        if state := next(collisions, None):
            connection.execute(text(f"DO $$ BEGIN RAISE EXCEPTION 'x' USING ERRCODE = '{state}'; END $$"))
        return handle(self, connection, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(Handler, "handle", colliding)
    # When it is committed, then it is run until it goes through
    batches(engine).commit(fence, setup())
    assert outcomes(engine) == 3


def test_a_batch_that_always_collides_ends_the_tenure(engine: Engine, fence: Fence) -> None:
    deadlock = "DO $$ BEGIN RAISE EXCEPTION 'x' USING ERRCODE = '40P01'; END $$"
    with pytest.raises(DBAPIError):
        batches(engine, statements={"exam-1": deadlock}).commit(fence, setup())
    assert quarantined(engine) == []


def test_a_command_that_always_collides_alone_ends_the_tenure(engine: Engine, fence: Fence) -> None:
    # Given a batch that is taken apart, in which a command always collides
    deadlock = "DO $$ BEGIN RAISE EXCEPTION 'x' USING ERRCODE = '40P01'; END $$"
    failing = {"exam-0": "SELECT 1/0", "exam-1": deadlock}
    # When it is committed, then that command is neither quarantined nor passed over
    with pytest.raises(DBAPIError, match="x"):
        batches(engine, statements=failing).commit(fence, setup())
    assert len(quarantined(engine)) == 1
    assert outcomes(engine) == 0


@pytest.mark.parametrize(
    ("statement", "detail"),
    [
        ("SELECT 1/0", "failed with DataError 22012; mend the cause, then replay it"),
        (
            "SET LOCAL statement_timeout = 20; SELECT pg_sleep(60)",
            "failed with OperationalError 57014; mend the cause, then replay it",
        ),
        (
            "INSERT INTO courses VALUES ('x'), ('x')",
            "failed with IntegrityError 23505 pk_courses; mend the cause, then replay it",
        ),
    ],
)
def test_a_command_that_the_database_refuses_goes_to_quarantine_alone(
    engine: Engine, fence: Fence, statement: str, detail: str
) -> None:
    ours = batches(engine, statements={"exam-1": statement})
    ours.commit(fence, setup())
    assert outcomes(engine) == 2
    assert quarantined(engine) == [("failed", detail)]
    assert ours.failures == 0


def test_a_bug_quarantines_its_command_and_tells_no_data(
    engine: Engine, fence: Fence, logged: list[EventDict]
) -> None:
    batches(engine, bugs=["exam-2"]).commit(fence, setup())
    assert outcomes(engine) == 2
    assert quarantined(engine) == [("failed", "failed with KeyError; mend the cause, then replay it")]
    [broke] = [line for line in logged if line["event"] == "a command broke"]
    assert "in decide" in broke["exception"]
    assert ADDRESS not in str(logged)


def test_three_in_a_row_are_no_accident(engine: Engine, fence: Fence) -> None:
    # Given a release that fails on every command
    ours = batches(engine, bugs=[f"exam-{n}" for n in range(1, 4)])
    # When it handles a batch, then the third failure stops it, and that message is not taken
    with pytest.raises(BadReleaseError, match=r"3 command\(s\) in a row failed, the last with KeyError"):
        ours.commit(fence, setup(5))
    assert outcomes(engine) == 1
    assert len(quarantined(engine)) == 2


def test_a_broken_schema_stops_at_once(engine: Engine, fence: Fence) -> None:
    with engine.begin() as connection:
        connection.execute(text("DROP TABLE transitions"))
    with pytest.raises(BadReleaseError, match="ProgrammingError 42P01"):
        batches(engine).commit(
            fence, [c.received(c.exam("A")), c.received(c.learner()), c.received(c.create("A"))]
        )
    assert quarantined(engine) == []


def test_an_unreadable_message_that_cannot_be_written_stops(engine: Engine, fence: Fence) -> None:
    broken = Unreadable(QuarantineCode.NOT_JSON, "\x00", {}, b"", new_receipt().at)
    with pytest.raises(BadReleaseError):
        batches(engine).commit(fence, [broken])


def test_a_database_that_is_away_is_waited_for(database_url: str, engine: Engine, fence: Fence) -> None:
    # Given a connection that the server ends in the middle of a batch
    ours = make_engine(database_url, application_name="victim")
    kill = "SELECT pg_terminate_backend(pg_backend_pid())"
    with pytest.raises(DBAPIError):
        batches(ours, statements={"exam-1": kill}).commit(fence, setup())
    ours.dispose()
    # Then nothing was written and nothing quarantined
    assert (outcomes(engine), quarantined(engine)) == (0, [])


def test_the_history_is_gapless_when_a_middle_command_fails(engine: Engine, fence: Fence) -> None:
    items: list[Item] = [
        c.received(c.exam("A")),
        c.received(c.learner()),
        c.received(c.create("A")),
        c.received(c.update("A", "started"), "bad"),
        c.received(c.update("A", "submitted")),
    ]
    batches(engine, bugs=["bad"]).commit(fence, items)
    with engine.begin() as connection:
        rows = connection.execute(
            select(Transition.version, Transition.to_status).order_by(Transition.version)
        )
        assert [tuple(row) for row in rows] == [(1, "created"), (2, "submitted")]


def costs(users: Sequence[str]) -> list[tuple[int, list[Item]]]:
    """Batches about these learners, and the round trips that each should take.

    BEGIN, the beginning and the reading are one, and so are the writing and COMMIT.
    """
    setting = [c.course(), c.exam("A"), c.exam("B"), *(c.learner(user) for user in users)]
    statuses: list[Item] = [c.received(c.update("A", "submitted", user)) for user in users]
    renamed = [
        c.received(c.update("A", "error", user), item.command.id)
        for user, item in zip(users, statuses, strict=True)
        if isinstance(item, Received)
    ]
    return [
        (2, [c.received(one) for one in setting]),
        (2, [c.received(c.create("A", user, taking_as_proctored=True)) for user in users]),
        (2, statuses),
        (2, [c.received(c.update("A", "declined", user)) for user in users]),  # and owes cascades
        (2, [c.received(c.create("B", user)) for user in users]),  # and folds them in
        (3, statuses),  # and fingerprints
        (5, [*renamed]),  # and fingerprints, quarantine, its bounds
        # and quarantine, its bounds
        (4, [Unreadable(QuarantineCode.NOT_JSON, "is no JSON", {}, b"?", new_receipt().at) for _ in users]),
    ]


@pytest.mark.parametrize("learners", [1, 40])
def test_what_a_batch_costs_in_round_trips_however_big_it_is(
    database_url: str, fence: Fence, learners: int
) -> None:
    with counted(database_url, pre_ping=False, session_settings="-c lock_timeout=5s") as (engine, trips):
        # Given a session that has seen everything once
        ours = batches(engine)
        for _, items in costs(["somebody"]):
            ours.commit(fence, items)
        trips()
        # Then a batch takes as many round trips as answers are waited for
        for expected, items in costs([str(number) for number in range(learners)]):
            ours.commit(fence, items)
            assert trips() == expected
        # Renewing the lease takes two
        ours.renew(fence)
        assert trips() == 2


def test_a_statement_is_prepared_once_in_each_session(database_url: str, fence: Fence) -> None:
    with counted(database_url, pre_ping=False, session_settings="-c lock_timeout=5s") as (engine, trips):
        ours = batches(engine)
        for _ in ("a session", "the next one"):
            ours.renew(fence)  # connects
            trips()
            # the first time the three statements are prepared
            for expected in (5, 2, 2):
                ours.commit(fence, [c.received(c.exam("A"))])
                assert trips() == expected
            engine.dispose()


def test_a_session_that_lost_what_was_prepared_is_given_up(engine: Engine, fence: Fence) -> None:
    # Given a session in which somebody has cleaned up
    ours = batches(engine)
    ours.commit(fence, setup())
    with engine.begin() as connection:
        connection.exec_driver_sql("DEALLOCATE ALL")
    # Then that is no fault of the commands or the release
    with pytest.raises(DBAPIError) as raised:
        ours.commit(fence, setup())
    assert classify(raised.value) is Failure.UNAVAILABLE
    # And the next session works
    engine.dispose()
    ours.commit(fence, setup())
    assert outcomes(engine) == 3


@dataclass(frozen=True, slots=True)
class Looking(Failing):
    """Looks what everybody sees of its batch, and fails when the batch is a whole one."""

    seen: list[dict[int, int]] = field(default_factory=list)

    def decide(
        self, commands: Sequence[tuple[Command, Receipt]], found: Found, now: datetime
    ) -> tuple[UnitOfWork, list[Handled]]:
        self.seen.append(shards.in_hand(self.connections[-1]))
        if len(commands) > 1:
            raise KeyError
        return Handler.decide(self, commands, found, now)


def test_a_batch_tells_how_many_messages_are_in_hand(engine: Engine, fence: Fence) -> None:
    # Given three messages, and four behind them
    handler = Looking(Policies(), True)
    # When their batch is written, and, as that fails, one after the other
    Batches(engine, handler, LEASE_S).commit(fence, setup(), behind=4)
    # Then everybody knows at any time how many there are, and afterwards that there are none
    assert handler.seen == [{0: 7}, {0: 7}, {0: 6}, {0: 5}]
    with engine.begin() as connection:
        assert shards.in_hand(connection) == {}


def test_what_is_in_hand_is_told_of_this_database_and_this_purpose_only(
    engine: Engine, empty_database_url: str
) -> None:
    others = create_engine(empty_database_url, poolclass=NullPool)
    with engine.begin() as connection, others.begin() as other:
        other.execute(select(func.pg_advisory_xact_lock_shared(shards.IN_HAND_LOCKS, 5)))
        for key in (shards.IN_HAND_LOCKS - 1, shards.IN_HAND_LOCKS + MAX_SHARDS):
            connection.execute(select(func.pg_advisory_xact_lock_shared(key, 5)))
        connection.execute(select(func.pg_advisory_xact_lock_shared(shards.IN_HAND_LOCKS << 32)))
        assert shards.in_hand(connection) == {}
