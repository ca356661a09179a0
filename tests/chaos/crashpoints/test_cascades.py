"""Cascades: run by the task and folded in by the handler, with either of them killed or standing still."""

from collections.abc import Iterator

import pytest

from tests.acceptance.harness import Stack
from tests.acceptance.oracle import assert_nothing_lost_or_doubled, assert_record_of_a_calm_day
from tests.chaos.crashpoints.effects import BRISK, UNHURRIED, introduce, lapse, owe, update
from tests.chaos.points import Crash

EXAMS = ("A", "B", "C")
OF_CASCADE = "kind = 'cascade_decline' AND user_id = :user"


@pytest.fixture
def calm_stack(database_url: str, valkey_url: str) -> Iterator[Stack]:
    with Stack(database_url, valkey_url, **UNHURRIED) as stack:
        yield stack


def test_the_task_killed_and_paused(calm_stack: Stack, calm_database_url: str) -> None:
    stack = calm_stack
    owe(stack, introduce("uvw", EXAMS))
    stack.start("relay", **BRISK)
    # When the worker dies with everything written, then nothing has happened
    owe(stack, [update("u", "declined", "A")])
    stack.wait_until_struck(stack.start("effects", crash=Crash("before_cascade_commit", "kill")))
    assert (cascade(stack, "u"), history(stack, "u")) == (
        "running",
        ["created", "declined", "created", "created"],
    )
    # When the next one dies after the commit, then all has happened, once
    lapse(stack)
    stack.wait_until_struck(stack.start("effects", crash=Crash("after_cascade", "kill")))
    assert (cascade(stack, "u"), history(stack, "u")) == ("done", ["created", "declined"] * len(EXAMS))
    # When one stands still before its transaction, and the handler folds the cascade in meanwhile
    paused = stack.start("effects", crash=Crash("before_cascade", "hold"))
    owe(stack, [update("v", "declined", "A")])
    stack.wait_until_struck(paused)
    paused.pause()
    owe(stack, [update("v", "started", "B")])
    assert cascade(stack, "v") == "done"
    before = (history(stack, "v"), tries(stack, "v"))
    # Then it changes nothing when it wakes
    paused.release()
    paused.resume()
    stack.wait_until(lambda: "too late to be recorded" in paused.output(), "it to come to its end")
    assert (history(stack, "v"), tries(stack, "v")) == before
    lapse(stack)
    stack.settle()
    assert_nothing_lost_or_doubled(stack, calm_database_url)


@pytest.mark.parametrize("point", ["before_claim_commit", "before_cascade_commit"])
def test_the_task_stopped_in_a_transaction_holds_nobody_up(
    calm_stack: Stack, calm_database_url: str, point: str
) -> None:
    # Given a worker that stands still with the cascade's row locked
    stack = calm_stack
    owe(stack, [*introduce("u", EXAMS), update("u", "declined", "A")])
    stack.execute("UPDATE effects SET due_at = now() + interval '1 day' WHERE target IS NOT NULL")
    stack.start("relay", **BRISK)
    worker = stack.start("effects", crash=Crash(point, "stop"))
    stack.wait_until_struck(worker)
    # When the handler folds the cascade in, then PostgreSQL ends the worker's session
    owe(stack, [update("u", "started", "B")])
    assert cascade(stack, "u") == "done"
    before = history(stack, "u")
    # and when it wakes, nothing of it commits
    worker.resume()
    stack.execute("UPDATE effects SET due_at = now() WHERE state = 'pending'")
    stack.settle()
    assert history(stack, "u") == before
    assert_nothing_lost_or_doubled(stack, calm_database_url)


def test_folded_in_by_a_handler_that_is_killed(stack: Stack, calm_database_url: str) -> None:
    # Given a cascade that no worker has run, and a command that must come after it
    owe(stack, [*introduce("u", EXAMS), update("u", "declined", "A")])
    stack.client.publish([update("u", "started", "B")])
    # When the handler dies before its commit, then nothing has happened
    stack.wait_until_struck(stack.start("commands", crash=Crash("before_commit", "kill")))
    assert cascade(stack, "u") == "pending"
    # When it dies after it, then the cascade is done, and nobody does it again
    stack.wait_until_struck(stack.start("commands", crash=Crash("before_acknowledge", "kill")))
    assert cascade(stack, "u") == "done"
    folded = history(stack, "u")
    assert folded.count("declined") == len(EXAMS)
    stack.start("commands")
    stack.settle_commands()
    assert history(stack, "u") == folded
    assert_record_of_a_calm_day(stack, calm_database_url)


def cascade(stack: Stack, user: str) -> str:
    [row] = stack.rows(f"SELECT state FROM effects WHERE {OF_CASCADE}", user=user)
    return str(row.state)


def tries(stack: Stack, user: str) -> list[tuple[object, ...]]:
    """Those of the learner's cascade."""
    rows = stack.rows(
        f"SELECT tries.* FROM tries JOIN effects ON id = effect_id WHERE {OF_CASCADE}", user=user
    )
    return [tuple(row) for row in rows]


def history(stack: Stack, user: str) -> list[str]:
    """The statuses of the learner's attempts, exam by exam."""
    return [status for exam in EXAMS for status in stack.history(exam, user)]
