"""The number of shards changes while real processes are killed, the command that changes it included."""

import random
import time
from contextlib import ExitStack

import pytest
from sqlalchemy import Engine

from events import shard_count
from tests.acceptance.harness import Stack
from tests.flowing import outcomes, quarantined, traffic

ASK_EVERY_S = 0.5
NOTICE_S = 1.5
SETTLE_S = 2.0
PROCESSES = 2
KILLS = 1
"""In each change."""


def test_each_learners_commands_keep_their_order_whoever_is_killed(
    engine: Engine,
    database_url: str,
    valkey_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(shard_count, "ASK_EVERY_S", ASK_EVERY_S)
    chance = random.Random(3)
    with ExitStack() as resources:
        # Given processes that serve four shards, and learners whose attempts begin, go on and end
        stack = resources.enter_context(Stack(database_url, valkey_url, COMMAND_SHARDS=4, BATCH_SIZE=20))
        for _ in range(PROCESSES):
            stack.start("commands")
        stack.wait_until(lambda: owned(stack) == 4, "four shards to be served")
        flow = resources.enter_context(traffic(valkey_url, 4, timeout_s=60))
        with flow.flowing():
            # When the number changes, and changes back, while consumers and that command are killed
            for number in (8, 4):
                arguments = (
                    "shards",
                    "set",
                    str(number),
                    "--notice",
                    str(NOTICE_S),
                    "--settle",
                    str(SETTLE_S),
                )
                setting = stack.program("invigilator", *arguments)
                for _ in range(KILLS):
                    time.sleep(chance.uniform(0.5, 1.5))
                    stack.some_owner().kill()
                    stack.start("commands")
                setting.kill()
                assert stack.cli(*arguments).returncode == 0
                assert stack.number("SELECT count(*) FROM shards") == number
        # Then every command is handled, once and in its order: any other order would have rejected some
        stack.wait_until(lambda: sum(outcomes(engine).values()) >= flow.published, "all to be handled")
        stack.wait_until(lambda: owned(stack) == 4, "four shards to be served again")
    assert outcomes(engine) == {"applied": flow.published}
    assert quarantined(engine) == []


def owned(stack: Stack) -> int:
    return stack.number("SELECT count(*) FROM shards WHERE owner IS NOT NULL AND lease_until > now()")
