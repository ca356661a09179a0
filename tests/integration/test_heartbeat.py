"""What a process writes of itself, and what is left of it."""

import threading
import time
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Engine, text
from structlog.typing import EventDict

from db import processes, shards, waiting
from db.connect import make_engine
from db.processes import ProcessState, Seen
from worker import app as module
from worker.app import look_at_worker, role_of
from worker.effects.running import RunningTries
from worker.heartbeat import Heartbeat, Look, ShardProgress
from worker.threads import Turning

NEVER_S = 3600.0
PATIENCE_S = 60.0


def heartbeat(database_url: str, look: Callable[[], Look], every_s: float = NEVER_S) -> Heartbeat:
    return Heartbeat(make_engine(database_url, application_name="tests"), {"role": look}, every_s)


def seen(engine: Engine) -> Sequence[Seen]:
    with engine.connect() as connection:
        return processes.seen(connection)


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


def test_it_beats_and_leaves(database_url: str, engine: Engine) -> None:
    looks = 0

    def look() -> Look:
        nonlocal looks
        looks += 1
        return Look({"queues": ["q"]})

    with heartbeat(database_url, look, every_s=0.01):
        until(lambda: looks > 3)
        [one] = seen(engine)
        assert (one.id, one.role, one.state) == (processes.this_process(), "role", "working")
        assert list(one.queues) == ["q"]
    assert seen(engine) == []


def test_a_process_with_two_roles_has_two_rows(database_url: str, engine: Engine) -> None:
    looks = {"one": lambda: Look({"queues": ["q"]}), "two": lambda: Look(stuck=["loop"])}
    with Heartbeat(make_engine(database_url, application_name="tests"), looks, every_s=NEVER_S):
        until(lambda: len(seen(engine)) == 2)
        one, two = seen(engine)
        assert (one.role, one.state, list(one.queues)) == ("one", "working", ["q"])
        assert (two.role, two.state, list(two.queues)) == ("two", "stuck", [])
        assert (one.pid, one.id) == (two.pid, processes.this_process())
    assert seen(engine) == []


def test_after_an_error_the_row_stays(database_url: str, engine: Engine) -> None:
    def fail() -> None:
        with heartbeat(database_url, Look):
            until(lambda: bool(seen(engine)))
            raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        fail()
    assert len(seen(engine)) == 1


@pytest.mark.parametrize(
    ("look", "state"),
    [
        (Look(), ProcessState.WORKING),
        (Look(is_stopping=True), ProcessState.STOPPING),
        (Look(stuck=["shard-0"], is_stopping=True), ProcessState.STUCK),
    ],
)
def test_its_state_is_what_its_loops_do(database_url: str, engine: Engine, look: Look, state: str) -> None:
    heartbeat(database_url, lambda: look).beat()
    [one] = seen(engine)
    assert (one.state, one.doing.get("stuck", [])) == (state, list(look.stuck))


def test_progress_is_the_owners(database_url: str, engine: Engine) -> None:
    with engine.begin() as connection:
        shards.ensure_shards(connection, 2)
        shards.take(connection, 0, "me", 60)
        shards.take(connection, 1, "other", 60)
    progress = [ShardProgress(0, "me", 7.0), ShardProgress(1, "me", 7.0)]
    heartbeat(database_url, lambda: Look(progress=progress)).beat()
    with engine.connect() as connection:
        mine, others = waiting.shard_rows(connection)
    assert mine.progressed_ago_s is not None
    assert 7 <= mine.progressed_ago_s < 7 + PATIENCE_S
    assert others.progressed_ago_s is None


def test_a_shard_that_is_locked_holds_up_no_sign_of_life(
    database_url: str, engine: Engine, logged: list[EventDict]
) -> None:
    # Given a batch that hangs
    with engine.begin() as connection:
        shards.ensure_shards(connection, 2)
        for shard in range(2):
            shards.take(connection, shard, "me", 60)
    with engine.begin() as hanging:
        hanging.execute(text("SELECT FROM shards WHERE shard = 0 FOR UPDATE"))
        # When its process beats, then it is seen, and it goes on when it cannot store what it found
        looked = threading.Semaphore(0)

        def look() -> Look:
            looked.release()
            return Look(progress=[ShardProgress(shard, "me", 7.0) for shard in range(2)])

        with heartbeat(database_url, look, every_s=0.01):
            for _ in range(2):
                assert looked.acquire(timeout=PATIENCE_S)
            assert len(seen(engine)) == 1
        # And the other shard of the process is not held up
        with engine.connect() as connection:
            assert [one.progressed_ago_s is None for one in waiting.shard_rows(connection)] == [True, False]
    assert [line["event"] for line in logged] == ["no sign of life can be written"]


def test_who_is_missing_and_replaced_is_forgotten_by_whoever_beats(database_url: str, engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO processes (id, role, host, pid, state, doing, started_at, seen_at) VALUES"
                " (gen_random_uuid(), 'role', 'h', 1, 'working', '{\"queues\": []}',"
                " now() - interval '9 h', now() - interval '30 min')"
            )
        )
    heartbeat(database_url, Look, every_s=5.0).beat()
    assert [one.id for one in seen(engine)] == [processes.this_process()]


def test_a_database_that_is_away_is_told_once(logged: list[EventDict]) -> None:
    looked = threading.Semaphore(0)

    def look() -> Look:
        looked.release()
        return Look()

    with heartbeat("postgresql://me:secret@127.0.0.1:1/x", look, every_s=0.01):
        for _ in range(3):
            assert looked.acquire(timeout=PATIENCE_S)
    assert [line["event"] for line in logged] == ["no sign of life can be written"]
    assert "secret" not in str(logged)


# --- Celery's workers --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["effects", "mail", "a-b", "effects-00000000-1"])
def test_a_workers_role_is_the_name_that_it_was_given(name: str) -> None:
    assert role_of(f"{name}-1f3a9c02@host") == name
    assert role_of(f"{name}@host") == name


def worker(concurrency: int = 2) -> Any:
    return SimpleNamespace(consumer=SimpleNamespace(turning=Turning()), concurrency=concurrency)


def test_what_a_worker_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INVIGILATOR_BROKER_URL", "redis://127.0.0.1:1/0")  # nothing connects to it
    tries = RunningTries()
    monkeypatch.setattr(module, "running", tries)
    first, second = UUID(int=1), UUID(int=2)
    with tries.noted(first, "cascade_decline"):
        look = look_at_worker(worker(), 0.0)
        assert look.doing["running"] == 1
        assert [(one["effect"], one["kind"]) for one in look.doing["tries"]] == [(first, "cascade_decline")]
        assert "invigilator.effects.email" in look.doing["queues"]
        # One of two threads hangs
        assert look.stuck == []
        with tries.noted(second, "deliver_event"):
            assert look_at_worker(worker(), 0.0).stuck == ["tries"]
            assert look_at_worker(worker(), 60.0).stuck == []


def test_a_worker_whose_event_loop_makes_no_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INVIGILATOR_BROKER_URL", "redis://127.0.0.1:1/0")
    monkeypatch.setattr(module, "STUCK_AFTER_S", -1.0)
    assert look_at_worker(worker(), 60.0).stuck == ["event loop"]
