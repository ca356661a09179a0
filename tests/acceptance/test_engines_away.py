"""The database and the broker end in the middle of the work, politely or not, and come back."""

import signal
from pathlib import Path

from tests import engines
from tests.acceptance.conftest import Start
from tests.acceptance.harness import Stack
from tests.acceptance.load import load
from tests.acceptance.oracle import assert_nothing_lost_or_doubled

ENDS = (signal.SIGINT, signal.SIGKILL)
BATCH = 5
FAILURES = 12  # more than the connections in Celery's pool


def test_the_database_goes_and_comes_back(
    tmp_path: Path, start_postgres: Start, valkey_url: str, calm_database_url: str
) -> None:
    server = start_postgres(tmp_path)
    with Stack(server.url, valkey_url) as stack:
        _work(stack)
        for number, end in enumerate(ENDS, 1):
            stack.wait_until_handled(150 * number)
            stack.wait_until(lambda: stack.owed() > 0, "effects to be under way")
            engines.end(server, end)
            server = start_postgres(tmp_path)
        stack.settle()
        assert_nothing_lost_or_doubled(stack, calm_database_url)


def test_the_broker_goes_and_comes_back(
    tmp_path: Path, database_url: str, start_valkey: Start, calm_database_url: str
) -> None:
    server = start_valkey(tmp_path)
    with Stack(database_url, server.url) as stack:
        _work(stack)
        stack.lms.latency_s = 1.0
        for end in ENDS * 2:
            stack.wait_until(lambda: _in_hand(stack) > 10, "every thread to be busy, with more at hand")
            engines.end(server, end)
            server = start_valkey(tmp_path)
        stack.lms.latency_s = 0.0
        stack.settle()
        assert_nothing_lost_or_doubled(stack, calm_database_url)


def test_the_broker_is_away_for_long(
    tmp_path: Path, database_url: str, start_valkey: Start, calm_database_url: str
) -> None:
    server = start_valkey(tmp_path)
    with Stack(database_url, server.url) as stack:
        stack.client.publish(load(100, seed=14))
        stack.start("commands")
        stack.settle_commands()
        relay = stack.start("relay")
        stack.wait_until(lambda: _offered(stack) > 0, "the relay to be at work")
        engines.end(server, signal.SIGKILL)
        stack.wait_until(lambda: relay.output().count("the broker is away") > FAILURES, "many failures")
        start_valkey(tmp_path)
        for name in ("effects", "mail"):
            stack.start(name)
        stack.settle()
        assert_nothing_lost_or_doubled(stack, calm_database_url)


def _offered(stack: Stack) -> int:
    return stack.number("SELECT count(*) FROM effects WHERE offered_until IS NOT NULL")


def _work(stack: Stack) -> None:
    stack.client.publish(load(500, seed=13))
    stack.lms.latency_s = 0.05
    stack.start("commands", BATCH_SIZE=BATCH)
    for name in ("relay", "effects", "mail"):
        stack.start(name)


def _in_hand(stack: Stack) -> int:
    return stack.number("SELECT count(*) FROM effects WHERE state = 'running' AND lease_until > now()")
