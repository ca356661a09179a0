"""Workers that die, or stand still, in an effect: before the call, in it, and before and after its record."""

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from aiosmtpd.smtp import SMTP, Envelope, Session
from sqlalchemy import Row

from invigilator.demo.reference import MailSink, Result
from tests.acceptance.harness import Process, Stack
from tests.acceptance.oracle import assert_nothing_lost_or_doubled
from tests.chaos.crashpoints.effects import (
    BRISK,
    UNHURRIED,
    calls,
    effects,
    holding_calls,
    introduce,
    lapse,
    mails,
    owe,
    posted,
    remove,
    results,
    states,
    update,
)
from tests.chaos.points import Crash

CREDIT = "kind IN ('set_credit_status', 'remove_credit_status')"


class SlowSink(MailSink):
    """A mail server that answers when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.go_on = threading.Event()
        self.go_on.set()
        self.arrived = 0

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        self.arrived += 1
        answer = await super().handle_DATA(server, session, envelope)
        await asyncio.to_thread(self.go_on.wait)
        return answer


@pytest.fixture
def sink() -> Iterator[SlowSink]:
    sink = SlowSink()
    yield sink
    sink.go_on.set()


@pytest.fixture
def stack(database_url: str, valkey_url: str, sink: SlowSink) -> Iterator[Stack]:
    """Which broker it is does not matter: a message only says "look"."""
    stack = Stack(database_url, valkey_url, **UNHURRIED)
    stack.mail = sink
    with stack:
        yield stack


def test_killed_at_each_point_of_the_same_effects(
    stack: Stack, sink: SlowSink, calm_database_url: str
) -> None:
    # Given every kind that calls the other side
    owe(stack, [*introduce("uv"), update("u", "submitted"), update("v", "submitted"), remove("v")])
    stack.start("relay", **BRISK)
    # When workers die before their calls, then nothing has been sent
    workers = start_workers(stack, Crash("before_call", "hold"))
    stack.wait_until(lambda: states(stack) == {"running": 5, "superseded": 1}, "everything to be claimed")
    kill(workers)
    assert (posted(stack), sink.arrived) == (0, 0)
    lapse(stack)
    # When they die in their calls, and the LMS carries these out later
    with holding_calls(stack):
        sink.go_on.clear()
        workers = start_workers(stack)
        stack.wait_until(lambda: (posted(stack), sink.arrived) == (3, 2), "everything to be on its way")
        kill(workers)
        assert stack.lms.calls == []
        sink.go_on.set()
    stack.wait_until(lambda: len(stack.lms.calls) == 3, "the LMS to carry them out")
    lapse(stack)
    # When they die after their calls, and nothing is recorded
    workers = start_workers(stack, Crash("before_record", "hold"))
    stack.wait_until(
        lambda: (len(stack.lms.calls), mails(stack).total()) == (6, 4), "everything to be called again"
    )
    kill(workers)
    assert states(stack) == {"running": 5, "superseded": 1}
    lapse(stack)
    # When they die with everything recorded
    workers = start_workers(stack, Crash("after_record", "hold"))
    stack.settle()
    kill(workers)
    # Then each is done, and what was called again the LMS could recognise
    assert {tuple(tried) for tried in results(stack).values()} == {(), ("lost", "lost", "lost", "done")}
    for made in calls(stack).values():
        assert [call.result for call in made] == [Result.APPLIED, Result.DUPLICATE, Result.DUPLICATE]
        sequences = [call.sequence for call in made]
        assert sequences == sorted(set(sequences))
    # but no mail server does
    assert sorted(mails(stack).values()) == [3, 3]
    assert_nothing_lost_or_doubled(stack, calm_database_url)


@pytest.mark.parametrize("point", ["before_call", "in_call", "before_record"])
def test_paused_beyond_the_lease(stack: Stack, point: str) -> None:
    # Given a worker that stands still with two credits in hand
    owe(stack, [*introduce("uv"), update("u", "submitted"), update("v", "submitted")])
    stack.start("relay", **BRISK)
    with holding_calls(stack) as go_on:
        if point == "in_call":
            old = stack.start("effects")
            stack.wait_until(lambda: posted(stack) == 2, "two calls to be under way")
        else:
            go_on.set()
            old = stack.start("effects", crash=Crash(point, "hold"))
            stack.wait_until_struck(old)
            in_hand = 2 if point == "before_record" else 0
            stack.wait_until(
                lambda: (running(stack), len(stack.lms.calls)) == (2, in_hand), "two effects in hand"
            )
        old.pause()
        # When its leases end, one of the credits is overtaken, and another worker is about to record its calls
        owe(stack, [update("v", "verified")])
        stack.lms.script = lambda _request: None
        lapse(stack)
        made = len(stack.lms.calls)
        new = stack.start("effects", crash=Crash("before_record", "hold"))
        stack.wait_until(
            lambda: (running(stack), len(stack.lms.calls)) == (2, made + 2), "another worker to take over"
        )
        before = (of_credit(stack), results(stack))
        # When the first one wakes, calls late, and wants to record that
        go_on.set()
        old.release()
        old.resume()
        stack.wait_until(
            lambda: old.output().count("too late to be recorded") == 2, "it to see that it is too late"
        )
    # Then nothing changes, here or there
    assert (of_credit(stack), results(stack)) == before
    new.release()
    stack.wait_until(lambda: credits_owed(stack) == 0, "the other worker to record what it has done")
    assert "too late to be recorded" not in new.output()
    assert stack.lms.credit("u", "course", "content-exam") == "submitted"
    assert stack.lms.credit("v", "course", "content-exam") == "satisfied"
    assert [row.state for row in of_credit(stack) if row.user_id == "v"] == ["superseded", "done"]
    assert_nothing_older_landed(stack)
    came = [call.result for call in stack.lms.calls]
    again = (
        [Result.APPLIED, Result.DUPLICATE] if point == "before_record" else [Result.DUPLICATE, Result.LATE]
    )
    assert came[:2] == [Result.APPLIED, Result.APPLIED]
    assert sorted(came[2:]) == again


def start_workers(stack: Stack, crash: Crash | None = None) -> list[Process]:
    return [stack.start(name, crash=crash) for name in ("effects", "mail")]


def kill(workers: list[Process]) -> None:
    for worker in workers:
        worker.kill()


def running(stack: Stack) -> int:
    return states(stack)["running"]


def of_credit(stack: Stack) -> list[Row[Any]]:
    """Every effect but the mails: those are offered again and again, as nobody sends them."""
    return [row for row in effects(stack) if row.target]


def credits_owed(stack: Stack) -> int:
    return stack.number(f"SELECT count(*) FROM effects WHERE state IN ('pending', 'running') AND {CREDIT}")


def assert_nothing_older_landed(stack: Stack) -> None:
    """What the LMS has applied to one learner's credit has rising sequences."""
    for user in "uv":
        applied = [
            call.sequence
            for call in stack.lms.calls
            if call.body.get("user_id") == user and call.result is Result.APPLIED
        ]
        assert applied == sorted(applied)
