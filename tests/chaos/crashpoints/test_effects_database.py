"""The database fails under live workers and a live relay: sessions end, it restarts, a commit's answer is lost."""

import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from invigilator.demo.reference import Result
from tests import engines
from tests.acceptance.conftest import Start
from tests.acceptance.harness import Stack
from tests.acceptance.load import load
from tests.acceptance.oracle import assert_nothing_lost_or_doubled
from tests.chaos.crashpoints.effects import (
    UNHURRIED,
    assert_no_call_without_its_try,
    calls,
    holding_calls,
    introduce,
    lapse,
    owe,
    posted,
    results,
    states,
    update,
)
from tests.chaos.points import Crash
from tests.chaos.proxy import COMMIT, Proxy, Side, proxying

TERMINATIONS = 6
SHORT = {"LEASE_S": 4, "CALL_TIMEOUT_S": 1.5}

_TERMINATE = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE datname = current_database() AND application_name IN ('invigilator effects', 'invigilator relay')
"""


def test_sessions_terminated_again_and_again(
    database_url: str, valkey_url: str, calm_database_url: str
) -> None:
    with Stack(database_url, valkey_url) as stack:
        owe(stack, load(300, seed=71))
        for name in ("relay", "effects", "mail"):
            stack.start(name)
        step = stack.owed() // (TERMINATIONS + 1)
        terminated = 0
        for left in range(TERMINATIONS, 0, -1):
            stack.wait_until(lambda: stack.owed() <= left * step, "some progress")  # noqa: B023
            terminated += len(stack.rows(_TERMINATE))
        stack.settle()
        assert terminated >= TERMINATIONS
        assert_no_call_without_its_try(stack)
        assert_nothing_lost_or_doubled(stack, calm_database_url)


def test_restarted_in_immediate_mode_in_a_call(
    tmp_path: Path, start_postgres: Start, valkey_url: str, calm_database_url: str
) -> None:
    server = start_postgres(tmp_path)
    with Stack(server.url, valkey_url) as stack:
        owe(stack, [*introduce("uv"), update("u", "error")])
        stack.start("relay")
        # Given a call that is answered while the server is away
        with holding_calls(stack) as go_on:
            worker = stack.start("effects", crash=Crash("each_record", "hold", nth=2), **UNHURRIED)
            stack.wait_until(lambda: posted(stack) == 1, "the call")
            engines.end(server, signal.SIGQUIT)
            go_on.set()
        stack.wait_until_struck(worker)
        # When it comes back before the worker gives up, then the call was the only one
        server = start_postgres(tmp_path)
        worker.release()
        stack.wait_until(lambda: states(stack) == {"done": 1}, "it to be recorded")
        worker.kill()
        # Given another one, and a worker that gives up
        worker = stack.start("effects", crash=Crash("before_record", "hold"), **SHORT)
        owe(stack, [update("v", "error")])
        stack.wait_until_struck(worker)
        engines.end(server, signal.SIGQUIT)
        worker.release()
        stack.wait_until(lambda: "the database is away" in worker.output(), "the worker to give up")
        # When the server comes back, then the call is made again, and the LMS can see that
        server = start_postgres(tmp_path)
        stack.settle()
        u, v = calls(stack).values()
        assert [call.result for call in u] == [Result.APPLIED]
        assert {call.result for call in v[1:]} == {Result.DUPLICATE}
        of_u, of_v = results(stack).values()
        assert of_u == ["done"]
        assert of_v[0] == "lost"
        assert_nothing_lost_or_doubled(stack, calm_database_url)


@pytest.fixture
def severed(database_url: str, valkey_url: str) -> Iterator[tuple[Stack, Proxy]]:
    """A stack with one worker, which reaches the database by way of a proxy."""
    with proxying(database_url) as proxy, Stack(database_url, valkey_url, **UNHURRIED) as stack:
        owe(stack, introduce("uv"))
        stack.start("relay")
        # The commit that is severed is to be the one that is meant, and no sign of life.
        stack.start("effects", DATABASE_URL=proxy.url(database_url), HEARTBEAT_S="3600")
        seen = "SELECT FROM processes WHERE role = 'effects'"
        stack.wait_until(lambda: bool(stack.rows(seen)), "its sign of life")
        yield stack, proxy


def test_severed_on_commit_of_a_claim(severed: tuple[Stack, Proxy], calm_database_url: str) -> None:
    stack, proxy = severed
    # Given a claim that never arrives, then it was none
    sever(stack, proxy, "before", "u")
    assert states(stack) == {"pending": 1}
    stack.wait_until(lambda: states(stack) == {"done": 1}, "it to be claimed again")
    # Given a claim that is committed, and its worker never learns of it, then somebody takes it over
    sever(stack, proxy, "after", "v")
    assert states(stack) == {"done": 1, "running": 1}
    lapse(stack)
    stack.settle()
    assert list(results(stack).values()) == [["done"], ["lost", "done"]]
    # and in both cases there was one call
    assert [len(made) for made in calls(stack).values()] == [1, 1]
    assert_nothing_lost_or_doubled(stack, calm_database_url)


def test_severed_on_commit_of_a_record(severed: tuple[Stack, Proxy], calm_database_url: str) -> None:
    stack, proxy = severed
    sides: tuple[tuple[str, Side], ...] = (("u", "before"), ("v", "after"))
    for user, side in sides:
        with holding_calls(stack) as go_on:
            before = posted(stack)
            owe(stack, [update(user, "error")])
            stack.wait_until(lambda: posted(stack) > before, "the call")  # noqa: B023
            cut_next_commit(stack, proxy, side, go_on.set)
        stack.settle()
    # Then what was not recorded is recorded, and what was is recognised; nothing is called again
    [worker] = stack.running("effects")
    stack.wait_until(lambda: "too late to be recorded" in worker.output(), "it to be recognised")
    assert list(results(stack).values()) == [["done"], ["done"]]
    assert [len(made) for made in calls(stack).values()] == [1, 1]
    assert_nothing_lost_or_doubled(stack, calm_database_url)


def sever(stack: Stack, proxy: Proxy, side: Side, user: str) -> None:
    """Let the learner's effect be claimed over a connection that is severed on commit."""
    cut_next_commit(stack, proxy, side, lambda: owe(stack, [update(user, "error")]))


def cut_next_commit(stack: Stack, proxy: Proxy, side: Side, begin: Callable[[], None]) -> None:
    cuts = proxy.cuts
    proxy.cut_at(COMMIT, side)
    begin()
    stack.wait_until(lambda: proxy.cuts > cuts, "a commit to be cut off")
    proxy.cut_at(None)
