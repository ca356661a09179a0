"""A person retries everything that failed, and the process that does it is killed in the middle of a step."""

import json
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest
from sqlalchemy import Engine, text

from db import acts
from invigilator.acts.effects import STEP_EFFECTS
from tests import sample_commands as c
from tests.acceptance.harness import Process, Stack
from tests.counted import DIFFERENCES
from tests.integration.cli.conftest import Record

MANY = 2 * STEP_EFFECTS + 100
FILTER = {"states": ["failed"], "kinds": ["send_status_email"]}

# As a worker leaves those that have failed for good. The total says so, too.
_FAILED = """
INSERT INTO effects (id, kind, state, attempt_id, payload, source, command_id, created_at, last_error, failed_at)
SELECT gen_random_uuid(), 'send_status_email', 'failed', attempts.id, '{}', '/tests', 'c' || number,
    now() - number * interval '1 s', '503', now()
FROM generate_series(1, :many) AS number, attempts
"""
_TOTAL = """
INSERT INTO totals (name, labels, writer, value)
VALUES ('effects', ARRAY['send_status_email', 'failed'], '00000000-0000-0000-0000-000000000000', :many)
"""
# One of the second step, which waits for it.
_LOCK = f"""
SELECT id
FROM effects
WHERE id = (SELECT id FROM effects WHERE state = 'failed' ORDER BY created_at OFFSET {STEP_EFFECTS + 10} LIMIT 1)
FOR UPDATE
"""
_WAITS = (
    "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
)
_STATES = """
SELECT state, count(*) FROM effects WHERE kind = 'send_status_email' GROUP BY state ORDER BY state
"""


@pytest.fixture
def failed(engine: Engine, stack: Stack) -> Stack:
    """A database in which many mails have failed."""
    record = Record(engine)
    record.handle(
        *(
            c.received(one, str(n))
            for n, one in enumerate((c.course(), c.exam("A"), c.learner(), c.create("A")))
        )
    )
    with engine.begin() as connection:
        for statement in (_FAILED, _TOTAL):
            connection.execute(text(statement), {"many": MANY})
    return stack


@contextmanager
def console(stack: Stack) -> Iterator[tuple[Process, httpx.Client]]:
    """A process that serves the console, and a browser on the same machine."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    web = stack.start("web", WEB_ADDRESS=address)
    with httpx.Client(base_url=f"http://{address}/console", timeout=120) as browser:
        stack.wait_until(lambda: answers(browser), "the console to answer")
        yield web, browser


def answers(browser: httpx.Client) -> bool:
    try:
        return browser.get("/search").status_code == 200
    except httpx.HTTPError:
        return False


def retry_all(browser: httpx.Client) -> str:
    """Retry all that failed. Returns the address of the page that tells how far it has come."""
    page = browser.get("/acts/retry", params={"state": "failed", "kind": "send_status_email"}).text
    token = re.search(r'name="csrf" value="([^"]+)"', page)
    assert token, page
    form = {"csrf": token[1], "filter": json.dumps(FILTER), "expected": str(MANY), "reason": "it is back"}
    return browser.post("/acts/retry", data=form).headers["location"].removeprefix("/console")


@contextmanager
def second_step_waits(engine: Engine, stack: Stack) -> Iterator[None]:
    """Has the second step stand still while the block runs to its end, where its process must be killed."""
    with engine.begin() as connection:
        connection.execute(text(_LOCK))
        yield
        stack.wait_until(lambda: stack.number(_WAITS) > 0, "the second step to wait")
        for process in stack.processes:
            process.kill()
    stack.wait_until(lambda: stack.number(_WAITS) == 0, "the server to notice")


def judge_half(engine: Engine, stack: Stack) -> None:
    """What was committed is recorded as such, and the rest never happened."""
    assert stack.rows(_STATES) == [("failed", MANY - STEP_EFFECTS), ("pending", STEP_EFFECTS)]
    [act] = stack.rows("SELECT * FROM bulk_acts")
    assert (act.expected, act.done, act.ended_at) == (MANY, STEP_EFFECTS, None)
    [step] = audit(engine)
    assert (step["act_id"], step["number"], step["closing"]) == (act.id, STEP_EFFECTS, False)
    assert stack.number("SELECT count(*) FROM act_targets") == STEP_EFFECTS
    assert stack.rows(DIFFERENCES) == []


def judge_all(engine: Engine, stack: Stack) -> None:
    """Every effect was acted upon, and none of them twice."""
    assert stack.rows(_STATES) == [("pending", MANY)]
    assert stack.number("SELECT count(*) FROM act_targets") == MANY
    assert stack.number("SELECT count(DISTINCT effect_id) FROM act_targets") == MANY
    numbers = [(row["number"], row["closing"]) for row in audit(engine)]
    rest = MANY - STEP_EFFECTS
    assert numbers == [
        (STEP_EFFECTS, False),
        (STEP_EFFECTS, False),
        (rest - STEP_EFFECTS, False),
        (rest, True),
    ]
    assert stack.rows(DIFFERENCES) == []


def audit(engine: Engine) -> list[dict[str, object]]:
    """Oldest first. The chain holds."""
    with engine.connect() as connection:
        assert acts.verify(connection).holds
        return list(acts.acts(connection))[::-1]


def test_on_the_command_line(engine: Engine, failed: Stack) -> None:
    command = (
        "effects",
        "retry",
        "--state",
        "failed",
        "--kind",
        "send_status_email",
        "--reason",
        "it is back",
    )
    with second_step_waits(engine, failed):
        failed.program("invigilator", *command)
    judge_half(engine, failed)
    # When the same command is given again, it goes on with the rest
    assert failed.cli(*command).stdout == f"retried: {MANY - STEP_EFFECTS}\n"
    judge_all(engine, failed)


def test_in_the_console(engine: Engine, failed: Stack) -> None:
    with console(failed) as (_, browser), second_step_waits(engine, failed):
        killed = retry_all(browser)
    judge_half(engine, failed)
    # Another process shows the act, as one that is interrupted when it was silent for long
    with console(failed) as (_, browser):
        assert "running" in browser.get(killed).text
        failed.execute("UPDATE bulk_acts SET seen_at = seen_at - interval '1 h'")
        page = browser.get(killed).text
        assert "interrupted" in page
        assert f"{STEP_EFFECTS} of {MANY:,}" in page
        # When all that failed is retried again, it goes on with the rest
        place = retry_all(browser)
        failed.wait_until(lambda: "finished" in browser.get(place).text, "the rest to be retried")
    judge_all(engine, failed)
