"""Pruning: what goes, what stays, and that whatever stays is decided on as before."""

import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, Engine, bindparam, create_engine, exists, func, select, text
from sqlalchemy.orm import aliased
from structlog.typing import EventDict

from db import effects, operators, prune
from db.models import Attempt, Base, Effect, Event, HandledCommand, InboxEntry, Pruned, Transition
from db.prune import Removed
from tests import sample_commands as c
from worker import processes, pruning
from worker.commands.handler import Handler
from worker.kinds import EffectKind
from worker.policies import Policies
from worker.pruning import Pruner
from worker.settings import Settings
from worker.threads import Loops

HANDLER = Handler(Policies(), instructor=True)
ENDED = ("done", "superseded", "cancelled")
DAY = timedelta(days=1)
PATIENCE_S = 60


@pytest.fixture
def record(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Engine:
    """Learners with an attempt each."""
    monkeypatch.setattr(pruning, "PAGE_PAUSE_S", 0)
    setup = [c.course(), c.exam("A"), c.learner("1"), c.learner("2"), c.create("A", "1"), c.create("A", "2")]
    handle(engine, *(c.received(one, f"setup-{number}") for number, one in enumerate(setup)))
    execute(engine, "UPDATE outcomes SET handled_at = now() - interval '1000 days'")
    return engine


def handle(engine: Engine, *received: Any) -> None:
    with engine.begin() as connection:
        c.handle(HANDLER, connection, received)


def execute(engine: Engine, statement: str, **values: Any) -> None:
    with engine.begin() as connection:
        connection.execute(text(statement), values)


def count(engine: Engine, table: type[Base]) -> int:
    with engine.begin() as connection:
        return connection.scalar(select(func.count()).select_from(table)) or 0


def pruned(engine: Engine, days: float) -> Removed:
    return pruning.prune(engine, days * DAY, threading.Event())


@dataclass(frozen=True)
class Owed:
    """An effect in a few words. Each was owed and ended so many days ago."""

    state: str
    target: str | None
    owed: int = 100
    ended: int = 100


def owe(engine: Engine, *effects: Owed) -> list[UUID]:
    """Write effects with a try each, oldest first."""
    rows = [
        {"id": uuid4(), **asdict(one), "cascade": one.target is None and one.state == "pending"}
        for one in effects
    ]
    with engine.begin() as connection:
        connection.execute(
            text(
                """INSERT INTO effects (id, kind, state, attempt_id, user_id, target, payload, source, command_id,
                    tries, created_at, due_at, lease_until, done_at, dropped_at)
                SELECT :id, CASE WHEN :cascade THEN 'cascade_decline' ELSE 'set_credit_status' END, :state, id,
                    user_id, :target, '{}', '/tests', 'x', 1,
                    now() - :owed * interval '1 day', now() - interval '1 day',
                    CASE WHEN :state = 'running' THEN now() + interval '1 h' END,
                    CASE WHEN :state = 'done' THEN now() - :ended * interval '1 day' END,
                    CASE WHEN :state IN ('superseded', 'cancelled') THEN now() - :ended * interval '1 day' END
                FROM attempts WHERE user_id = '1'"""
            ).bindparams(
                bindparam("target", type_=Effect.target.type), bindparam("id", type_=Effect.id.type)
            ),
            rows,
        )
        connection.execute(
            text("INSERT INTO tries SELECT id, 1, now(), now(), 'done' FROM effects ON CONFLICT DO NOTHING")
        )
    return [row["id"] for row in rows]


def left(engine: Engine) -> set[UUID]:
    with engine.begin() as connection:
        return set(connection.scalars(select(Effect.id)))


def test_what_has_been_finished_for_long_goes(record: Engine) -> None:
    # Given effects of every state, with no target
    states = ("done", "superseded", "cancelled", "failed", "pending", "running")
    old = owe(record, *(Owed(state, None) for state in states))
    young = owe(record, *(Owed(state, None, ended=10) for state in states))
    before = [count(record, table) for table in (Attempt, Transition)]
    # When what ended more than 90 days ago is pruned
    removed = pruned(record, 90)
    # Then that is gone, with tries and commands, and what is owed or failed has stayed
    assert removed == Removed(effects=3, tries=3, commands=6)
    assert left(record) == {*old[3:], *young}
    assert (count(record, InboxEntry), count(record, HandledCommand)) == (0, 0)
    # And so has the record
    assert [count(record, table) for table in (Attempt, Transition)] == before
    assert pruned(record, 90) == Removed()


def test_it_is_noted_up_to_which_moment_rows_may_be_gone(record: Engine) -> None:
    # When there was nothing to remove, then nothing is noted
    pruned(record, 2000)
    assert noted(record) == {}
    # When rows go, then the note never moves back
    owe(record, Owed("done", None))
    pruned(record, 90)
    first = noted(record)
    assert set(first) == {"effects", "outcomes"}
    assert first["effects"] == first["outcomes"]
    owe(record, Owed("done", None, owed=300, ended=300))
    pruned(record, 200)
    assert noted(record) == first
    # And moves on with the next pruning
    owe(record, Owed("done", None, owed=80, ended=80))
    pruned(record, 60)
    assert noted(record)["effects"] > first["effects"]


def noted(engine: Engine) -> dict[str, datetime]:
    with engine.begin() as connection:
        return {row.what: row.before for row in connection.execute(select(Pruned.__table__))}


def test_a_page_at_a_time(record: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given pages of two: with effects that go, and that stay; and of commands
    monkeypatch.setattr(prune, "PAGE_ROWS", 2)
    ids = owe(
        record, *[Owed(state, None) for state in ("failed", "failed", "done", "failed", "done", "done")]
    )
    owe_young = owe(record, *[Owed("done", None, owed=1, ended=1)] * 3)
    # When they are pruned, then no page ends it early
    assert pruned(record, 90).effects == 3
    assert left(record) == {ids[0], ids[1], ids[3], *owe_young}
    assert count(record, InboxEntry) == 0


@pytest.mark.parametrize(
    ("states", "stays"),
    [
        # The newest that is at its end says that those before it are overtaken
        (["done", "done", "superseded", "done"], [3]),
        (["done", "superseded"], [1]),
        (["failed", "done", "done"], [0, 2]),
        # What came after it may still be cancelled by a person, who then may retry what came before
        (["done", "failed"], [0, 1]),
        (["done", "done", "pending"], [1, 2]),
        (["done", "running"], [0, 1]),
        # or retried
        (["done", "cancelled"], [0, 1]),
        (["cancelled", "done"], [1]),
        (["cancelled", "cancelled"], [0, 1]),
    ],
)
def test_of_each_target_those_stay_that_overtake_others(
    record: Engine, states: list[str], stays: list[int]
) -> None:
    ids = owe(record, *(Owed(state, "credit:1") for state in states))
    pruned(record, 90)
    assert left(record) == {ids[number] for number in stays}


def test_what_was_dropped_recently_stays(record: Engine) -> None:
    # Given effects that were owed long ago, and a person and a worker who drop them now
    failed, older, newer = owe(
        record, Owed("failed", None), Owed("pending", "credit:1"), Owed("done", "credit:1")
    )
    with record.begin() as connection:
        assert operators.cancel(connection, [failed]).refused == {}
        assert not claim(connection, older)
    # Then they are not finished for long
    assert pruned(record, 90).effects == 0
    execute(record, "UPDATE effects SET dropped_at = dropped_at - interval '91 days'")
    assert pruned(record, 90).effects == 2
    assert left(record) == {newer}


def test_what_a_person_looks_at_is_left_alone(record: Engine) -> None:
    # Given somebody who has locked an effect that was cancelled long ago, to retry it
    chosen, _ = owe(record, Owed("cancelled", None), Owed("cancelled", None))
    with record.begin() as person:
        assert operators.retry(person, [chosen]).refused == {}
        # When others are pruned, then nobody waits, and that one is not touched
        assert pruned(record, 90).effects == 1
    assert left(record) == {chosen}
    assert pruned(record, 90).effects == 0


def test_a_table_that_is_locked_is_not_waited_for(record: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    owe(record, Owed("done", None))
    monkeypatch.setattr(prune, "LOCK_TIMEOUT", "10ms")
    with record.begin() as holder:
        holder.execute(text("LOCK TABLE tries"))
        with pytest.raises(Exception, match="lock timeout"):
            pruned(record, 90)
    assert pruned(record, 90).effects == 1


def test_two_at_once_remove_each_row_once(record: Engine, database_url: str) -> None:
    # Given a page that somebody else is removing
    owe(record, *[Owed("done", None)] * 3)
    other = create_engine(database_url)
    with record.begin() as connection, other.begin() as second:
        before = connection.execute(select(func.now() - 90 * DAY)).scalar_one()
        assert prune.remove_effects(connection, before, None).removed == Removed(effects=3, tries=3)
        assert prune.remove_commands(connection, before, None).removed == Removed(commands=6)
        # Then nothing is left to remove, and nobody waits
        assert prune.remove_effects(second, before, None).removed == Removed()
        assert prune.remove_commands(second, before, None).removed == Removed()
    other.dispose()


def test_a_command_that_was_pruned_and_comes_again_is_a_new_one(record: Engine) -> None:
    # Given a command, and its duplicate
    start = c.received(c.update("A", "started", "1"), "start")
    handle(record, start, start)
    handle(record, c.received(c.update("A", "submitted", "1"), "submit"))
    assert count(record, InboxEntry) == 8
    # When it is younger than what is pruned, then its duplicate is recognised
    pruned(record, 90)
    handle(record, start)
    assert count(record, InboxEntry) == 2
    # When it is older, then it is decided on like a new one, and the rules have the last word
    execute(record, "UPDATE outcomes SET handled_at = now() - interval '91 days'")
    pruned(record, 90)
    handle(record, start)
    with record.begin() as connection:
        outcome = connection.execute(select(HandledCommand.outcome, HandledCommand.code)).one()
    assert tuple(outcome) == ("rejected", "illegal_transition")


# --- every day -------------------------------------------------------------------------------------------


def until_stopped(
    record: Engine, condition: Callable[[], bool], older_than: timedelta | None = 90 * DAY
) -> None:
    """Runs the daily pruning until something has happened."""
    stopping = threading.Event()
    thread = threading.Thread(target=Pruner(record, older_than, 30 * DAY).run, args=(stopping,))
    thread.start()
    try:
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            assert time.monotonic() < deadline, "it did not happen"
            time.sleep(0.01)
    finally:
        stopping.set()
        thread.join(PATIENCE_S)
    assert not thread.is_alive()


def test_it_prunes_soon_after_the_start_and_then_again(
    record: Engine, monkeypatch: pytest.MonkeyPatch, logged: list[EventDict]
) -> None:
    monkeypatch.setattr(pruning, "FIRST_AFTER_S", 0)
    monkeypatch.setattr(pruning, "EVERY_S", 0)
    owe(record, Owed("done", None))
    until_stopped(record, lambda: len(logged) >= 2)
    assert [(one["event"], one["effects"], one["tries"], one["commands"]) for one in logged[:2]] == [
        ("pruned", 1, 1, 6),
        ("pruned", 0, 0, 0),
    ]


def test_an_error_of_the_database_does_not_end_it(
    record: Engine, monkeypatch: pytest.MonkeyPatch, logged: list[EventDict]
) -> None:
    monkeypatch.setattr(pruning, "FIRST_AFTER_S", 0)
    monkeypatch.setattr(pruning, "AGAIN_AFTER_S", 0)
    monkeypatch.setattr(prune, "LOCK_TIMEOUT", "10ms")
    owe(record, Owed("done", None))
    with record.connect() as holder:
        holder.execute(text("LOCK TABLE tries"))

        def gone() -> bool:
            if len(logged) == 2:
                holder.rollback()
            return not left(record)

        until_stopped(record, gone)
    assert "lock timeout" in logged[0]["reason"]
    assert logged[0]["again_in_s"] == 0
    assert "\n" not in logged[0]["reason"]


def test_a_database_that_is_away_is_asked_again_soon(
    record: Engine, monkeypatch: pytest.MonkeyPatch, logged: list[EventDict]
) -> None:
    # Given a long pause after any other error
    monkeypatch.setattr(pruning, "FIRST_AFTER_S", 0)
    monkeypatch.setattr(pruning, "AGAIN_AFTER_S", 10 * PATIENCE_S)
    remove = prune.remove_effects
    owe(record, Owed("done", None))

    def read_only_at_first(connection: Connection, *arguments: Any) -> Any:
        if not logged:
            connection.execute(text("DO $$ BEGIN RAISE 'no' USING ERRCODE = '25006'; END $$"))
        return remove(connection, *arguments)

    # When the database is a standby for a moment, then it is pruned all the same
    monkeypatch.setattr(pruning, "remove_effects", read_only_at_first)
    until_stopped(record, lambda: not left(record))
    assert logged[0]["event"] == "pruning tries again"


def test_it_stops_between_two_pages(record: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given pages of one, and a long pause between them
    monkeypatch.setattr(pruning, "FIRST_AFTER_S", 0)
    monkeypatch.setattr(pruning, "PAGE_PAUSE_S", 10 * PATIENCE_S)
    monkeypatch.setattr(prune, "PAGE_ROWS", 1)
    owe(record, Owed("done", None), Owed("done", None))
    # When it is told to stop in the pause, then it does not go on
    until_stopped(record, lambda: len(left(record)) == 1)
    assert len(left(record)) == 1
    assert count(record, InboxEntry) == 6


def test_without_an_age_events_are_pruned_and_effects_stay(
    record: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pruning, "FIRST_AFTER_S", 0)
    owe(record, Owed("done", None))
    execute(record, "UPDATE event_log SET position = 1")
    execute(
        record,
        "INSERT INTO events (id, position, type, time, data)"
        " VALUES (gen_random_uuid(), 1, 'x', now() - interval '31 days', '{}')",
    )
    until_stopped(record, lambda: count(record, Event) == 0, older_than=None)
    assert len(left(record)) == 1


@pytest.mark.parametrize(("setting", "age"), [(None, None), ("90d", 90 * DAY)])
def test_the_relay_prunes_what_is_configured(
    database_url: str, monkeypatch: pytest.MonkeyPatch, setting: str | None, age: timedelta | None
) -> None:
    made: list[Pruner] = []

    def pruner(*values: Any) -> Pruner:
        made.append(Pruner(*values))
        return made[0]

    monkeypatch.setattr(processes, "Pruner", pruner)
    monkeypatch.setattr(Loops, "run_until_stopped", lambda _: None)
    nowhere = "redis://127.0.0.1:1/0"
    processes.relay(Settings(database_url=database_url, broker_url=nowhere, prune_older_than=setting))
    assert [(one.older_than, one.events_keep) for one in made] == [(age, 30 * DAY)]


# --- whatever stays is decided on as before --------------------------------------------------------------

owed = st.builds(
    Owed,
    state=st.sampled_from(("done", "done", "superseded", "cancelled", "failed", "pending")),
    target=st.sampled_from(("credit:1", "credit:1", "credit:2", None)),
    ended=st.integers(1, 100),
)


def cancel(connection: Connection, effect_id: UUID) -> Any:
    return operators.cancel(connection, [effect_id]).refused


def retry(connection: Connection, effect_id: UUID) -> Any:
    return operators.retry(connection, [effect_id]).refused


def claim(connection: Connection, effect_id: UUID) -> Any:
    wanted = effects.Wanted(effect_id, EffectKind.SET_CREDIT_STATUS, "queue")
    return effects.claim(connection, [wanted], 60).get(effect_id) is not None


actions = st.lists(st.tuples(st.sampled_from((cancel, retry, claim)), st.integers(0, 11)), max_size=5)


def answers(connection: Connection, kept: list[UUID]) -> list[Any]:
    """The state of each effect, and whether it is overtaken."""
    newer = aliased(Effect)
    overtaken = exists().where(
        newer.target == Effect.target, newer.sequence > Effect.sequence, newer.state != "cancelled"
    )
    rows = connection.execute(select(Effect.id, Effect.state, overtaken).where(Effect.id.in_(kept)))
    by_id = {row[0]: tuple(row) for row in rows}
    return [by_id[effect_id] for effect_id in kept]


def decisions(connection: Connection, kept: list[UUID], steps: list[Any]) -> list[Any]:
    """What people and workers are told of effects that stay, one step after the other, and how all stand then."""
    told: list[Any] = [answers(connection, kept)]
    for action, number in steps:
        if kept:
            told.append(action(connection, kept[number % len(kept)]))
            told.append(answers(connection, kept))
    return told


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(owing=st.lists(owed, min_size=1, max_size=8), cutoff=st.integers(1, 100), steps=actions)
def test_whatever_stays_is_decided_on_as_before(
    record: Engine, owing: list[Owed], cutoff: int, steps: list[Any]
) -> None:
    engine = record
    execute(engine, "DELETE FROM effects")
    ids = owe(engine, *owing)
    # Given what people would be told, had nothing been pruned
    with engine.connect() as connection:
        before = connection.execute(select(func.now() - cutoff * DAY)).scalar_one()
        assert prune.remove_effects(connection, before, None).removed.effects <= len(ids)
        kept = list(connection.scalars(select(Effect.id).order_by(Effect.sequence)))
        pruned_answers = decisions(connection, kept, steps)
        connection.rollback()
        whole_answers = decisions(connection, kept, steps)
        connection.rollback()
    # Then they are told the same after it, step by step
    assert pruned_answers == whole_answers
    # And what goes is only what ended, and ended before
    for effect_id, one in zip(ids, owing, strict=True):
        if effect_id not in kept:
            assert one.state in ENDED
            assert one.ended >= cutoff
