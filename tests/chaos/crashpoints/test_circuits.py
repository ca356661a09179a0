"""An open circuit, when the database restarts, and when the worker that probes the service dies."""

import signal
from pathlib import Path

from tests import engines
from tests.acceptance.conftest import Start
from tests.acceptance.harness import Stack
from tests.acceptance.lms import Answer
from tests.acceptance.oracle import assert_nothing_lost_or_doubled
from tests.chaos.crashpoints.effects import (
    UNHURRIED,
    end_offers,
    holding_calls,
    introduce,
    lapse,
    owe,
    posted,
    states,
    update,
)
from worker.rules.retry import CIRCUIT_FAILURES

LEARNERS = [f"u{number}" for number in range(20)]


def test_the_prober_killed_after_a_restart_of_the_database(
    tmp_path: Path, start_postgres: Start, valkey_url: str, calm_database_url: str
) -> None:
    server = start_postgres(tmp_path)
    with Stack(server.url, valkey_url, RETRY_BASE_S=600, RETRY_CAP_S=600, **UNHURRIED) as stack:
        owe(stack, [*introduce(LEARNERS), *(update(user, "error") for user in LEARNERS)])
        stack.lms.script = lambda _request: Answer(503)
        for name in ("relay", "effects"):
            worker = stack.start(name)
        # Given an open circuit, when the server restarts, then it is still open
        stack.wait_until(lambda: is_open(stack) and states(stack)["running"] == 0, "the circuit to open")
        engines.end(server, signal.SIGQUIT)
        server = start_postgres(tmp_path)
        assert is_open(stack)
        with holding_calls(stack):
            # When the worker dies that makes the one call that probes the service
            tried = posted(stack)
            assert tried >= CIRCUIT_FAILURES
            lapse(stack)
            stack.wait_until(lambda: posted(stack) > tried, "a probe")
            worker.kill()
            assert posted(stack) == tried + 1
            # Then nobody calls before its lease has ended
            assert states(stack) == {"running": 1, "pending": len(LEARNERS) - 1}
            assert stack.number("SELECT count(*) FROM circuits WHERE open_until > now()") == 1
        # and after that another one probes, and closes the circuit
        stack.start("effects")
        lapse(stack)
        stack.execute("UPDATE effects SET due_at = now() WHERE state = 'pending'")
        end_offers(stack)
        stack.settle()
        assert stack.rows("SELECT * FROM circuits") == []
        assert_nothing_lost_or_doubled(stack, calm_database_url)


def is_open(stack: Stack) -> bool:
    return stack.number("SELECT count(*) FROM circuits WHERE open_until IS NOT NULL") == 1
