"""The primary fails, or an address leads to a standby for a while: nothing is lost, and everybody goes on."""

import re
import signal
from pathlib import Path

import pytest
from sqlalchemy.engine import make_url

from invigilator.local.server import HOST, Server
from tests import engines, standby
from tests.acceptance.conftest import Start
from tests.acceptance.harness import EVERYBODY, Process, Stack
from tests.acceptance.load import load
from tests.acceptance.oracle import assert_nothing_lost_or_doubled
from tests.chaos.proxy import proxying

BATCH = 5
READ_ONLY = re.compile("read-only|during recovery")
THREADS = 16
LATENCY_S = 0.5  # below half of a try's deadline, which a mail's question to the LMS has
RUNNING = "SELECT count(*) FROM effects WHERE state = 'running' AND kind = :kind AND lease_until > now()"


@pytest.fixture
def pair(tmp_path: Path, start_postgres: Start) -> tuple[Server, Server]:
    """A primary with our schema, and a standby that has everything that is committed on it."""
    primary = start_postgres(tmp_path / "primary")
    standby.copy(primary.url, tmp_path / "primary", tmp_path / "standby")
    second = start_postgres(tmp_path / "standby")
    standby.follow_closely(primary.url)
    return primary, second


def work(stack: Stack) -> None:
    """Publish, and start everybody, so slowly that something is under way at each moment."""
    stack.client.publish(load(300, seed=23))
    stack.lms.latency_s = LATENCY_S
    stack.start("commands", BATCH_SIZE=BATCH)
    for name in EVERYBODY[1:]:
        stack.start(name, SMTP_MAX_CONNECTIONS=THREADS)
    stack.wait_until(lambda: stack.number(RUNNING, kind="set_credit_status") > THREADS / 4, "many credits")
    stack.wait_until(lambda: stack.number(RUNNING, kind="send_status_email") > THREADS / 4, "many mails")


def wait_until_it_says_so(stack: Stack, process: Process) -> None:
    """Wait until a process has met a server that is read-only, once more."""
    before = len(READ_ONLY.findall(process.output()))
    stack.wait_until(
        lambda: len(READ_ONLY.findall(process.output())) > before,
        f"{process.name} to meet a server that is read-only",
    )


def test_the_standby_takes_over(pair: tuple[Server, Server], valkey_url: str, calm_database_url: str) -> None:
    # Given two servers in the URL, the standby first, and everybody at work
    primary, second = pair
    url = make_url(primary.url)
    both = f"{HOST}:{second.port},{HOST}:{primary.port}"
    with Stack(f"postgresql://{url.username}:{url.password}@{both}/{url.database}", valkey_url) as stack:
        work(stack)
        # When the primary is killed, and the standby is promoted after a while in which nobody could do anything
        engines.end(primary, signal.SIGKILL)
        for name in EVERYBODY[:2]:
            wait_until_it_says_so(stack, stack.running(name)[0])
        stack.lms.latency_s = 0.0
        standby.promote(second.url)
        # Then everything that was owed is done there
        stack.settle()
        assert_nothing_lost_or_doubled(stack, calm_database_url)


@pytest.mark.parametrize("attributes", ["", "?target_session_attrs=any"], ids=["by default", "any server"])
def test_an_address_leads_to_a_standby_for_a_while(
    pair: tuple[Server, Server], valkey_url: str, calm_database_url: str, attributes: str
) -> None:
    # Given everybody at work, by way of an address that can move
    primary, second = pair
    with proxying(primary.url) as proxy, Stack(primary.url, valkey_url) as stack:
        stack.settings["DATABASE_URL"] = proxy.url(primary.url) + attributes
        work(stack)
        # When it leads to the standby, and back: no connection that was made meanwhile is cut
        at_home = proxy.target
        proxy.target = (HOST, second.port)
        proxy.cut()
        for process in list(stack.processes):
            wait_until_it_says_so(stack, process)
        stack.lms.latency_s = 0.0
        proxy.target = at_home
        # Then everything that was owed is done
        stack.settle()
        assert_nothing_lost_or_doubled(stack, calm_database_url)


def test_a_database_is_read_only_for_a_while(stack: Stack, calm_database_url: str) -> None:
    # Given everybody at work
    work(stack)
    name = make_url(stack.database_url).database
    # When the database is made read-only for new sessions, and everybody has to connect anew
    standby.execute(
        stack.database_url,
        f'ALTER DATABASE "{name}" SET default_transaction_read_only = on',
        f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}' "
        "AND pid <> pg_backend_pid()",
    )
    for process in list(stack.processes):
        wait_until_it_says_so(stack, process)
    # And can be written to again
    stack.lms.latency_s = 0.0
    standby.execute(
        stack.database_url,
        "SET default_transaction_read_only = off",
        f'ALTER DATABASE "{name}" RESET default_transaction_read_only',
    )
    # Then everything that was owed is done
    stack.settle()
    assert_nothing_lost_or_doubled(stack, calm_database_url)
