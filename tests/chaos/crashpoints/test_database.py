"""The database fails under a live `consume`: sessions end, the server restarts, a commit's answer is lost."""

import signal
from pathlib import Path

from tests import engines
from tests.acceptance.conftest import Start
from tests.acceptance.harness import POLL_S, Process, Stack
from tests.acceptance.load import load
from tests.acceptance.oracle import assert_record_of_a_calm_day
from tests.chaos.points import Crash
from tests.chaos.proxy import COMMIT, proxying

BATCH = 5
TERMINATIONS = 4
CUTS = 3

_OUR_SESSIONS = "FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE '%shard%'"


def test_sessions_terminated_again_and_again(
    database_url: str, valkey_url: str, calm_database_url: str
) -> None:
    with Stack(database_url, valkey_url) as stack:
        stack.client.publish(load(200, seed=31))
        process = stack.start("commands", BATCH_SIZE=BATCH)
        stack.wait_until(
            lambda: terminate_busy_sessions(stack, process) >= TERMINATIONS,
            "tenures to end, again and again",
            longest_pause_s=POLL_S,
        )
        stack.settle_commands()
        assert_record_of_a_calm_day(stack, calm_database_url)


def test_the_session_terminated_in_a_transaction(stack: Stack, calm_database_url: str) -> None:
    bodies = load(50, seed=32)
    stack.client.publish(bodies)
    process = stack.start("commands", crash=Crash("before_commit", "stop", nth=2), BATCH_SIZE=BATCH)
    stack.wait_until_struck(process)
    stack.rows(f"SELECT pg_terminate_backend(pid) {_OUR_SESSIONS}")
    stack.wait_until(lambda: not stack.rows(f"SELECT pid {_OUR_SESSIONS}"), "the session to end")
    process.resume()
    stack.settle_commands()
    assert starts(process) >= 1
    assert_record_of_a_calm_day(stack, calm_database_url)


def test_restarted_in_immediate_mode_in_a_batch(
    tmp_path: Path, start_postgres: Start, valkey_url: str, calm_database_url: str
) -> None:
    server = start_postgres(tmp_path)
    with Stack(server.url, valkey_url) as stack:
        stack.client.publish(load(50, seed=33))
        # Given one batch that is written and not committed, and then one that is committed and not acknowledged
        for point, lost in (("before_commit", 1), ("before_acknowledge", 0)):
            process = stack.start("commands", crash=Crash(point, "stop", nth=2), BATCH_SIZE=BATCH)
            stack.wait_until_struck(process)
            # When the server ends without a checkpoint, and comes back
            engines.end(server, signal.SIGQUIT)
            server = start_postgres(tmp_path)
            process.resume()
            assert process.terminate() == 0
            assert starts(process) >= lost
        stack.start("commands", BATCH_SIZE=BATCH)
        stack.settle_commands()
        assert_record_of_a_calm_day(stack, calm_database_url)


def test_severed_on_commit(stack: Stack, calm_database_url: str) -> None:
    with proxying(stack.database_url) as proxy:
        stack.client.publish(load(200, seed=34))
        # Given commits that never reach the server, and then commits whose answers never come back
        proxy.cut_at(COMMIT, "before", every=5)
        stack.start("commands", BATCH_SIZE=BATCH, DATABASE_URL=proxy.url(stack.database_url))
        stack.wait_until(lambda: proxy.cuts >= CUTS, "commits to be cut off")
        proxy.cut_at(COMMIT, "after", every=5)
        stack.wait_until(lambda: proxy.cuts >= 2 * CUTS, "answers to be cut off")
        assert stack.client.waiting() > 0
        proxy.cut_at(None)
        # Then each command has one outcome, as if nothing had happened
        stack.settle_commands()
        assert_record_of_a_calm_day(stack, calm_database_url)


def terminate_busy_sessions(stack: Stack, process: Process) -> int:
    """End every session that is in a transaction now. Returns how often the process has started over up to now."""
    stack.rows(f"SELECT pg_terminate_backend(pid) {_OUR_SESSIONS} AND state <> 'idle'")
    return starts(process)


def starts(process: Process) -> int:
    """How often it has started over."""
    return process.output().count("starts over")
