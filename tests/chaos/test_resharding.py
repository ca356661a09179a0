"""The number of shards changes while real processes are killed, the command that changes it included."""

import random
import threading
import time
from contextlib import ExitStack

import pytest
from sqlalchemy import Engine

from events import shard_count
from events.publisher import Publisher
from tests.acceptance.harness import Stack
from tests.integration.commands.test_resharding import Learner, flow, outcomes, quarantined

ASK_EVERY_S = 0.5
NOTICE_S = 1.5
SETTLE_S = 2.0
PROCESSES = 2
LEARNERS = 8
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
        publishers = [
            resources.enter_context(
                Publisher(valkey_url, source=f"/lms/{one}", timeout_s=60, assumed_shards=4)
            )
            for one in range(3)
        ]
        publishers[0].upsert_course(course_id="C")
        publishers[0].upsert_exam(exam_id="A", course_id="C", content_id="a", exam_name="A")
        learners = [Learner(str(number), publishers) for number in range(LEARNERS)]
        for learner in learners:
            publishers[0].upsert_learner(user_id=learner.user_id, username="u", email="u@example.org")
        enough = threading.Event()
        flowing = [
            threading.Thread(target=flow, args=(learners[one::2], enough), daemon=True) for one in range(2)
        ]
        for thread in flowing:
            thread.start()
        try:
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
        finally:
            enough.set()
            for thread in flowing:
                thread.join()
        # Then every command is handled, once and in its order: any other order would have rejected some
        published = sum(learner.published for learner in learners) + len(learners) + 2
        stack.wait_until(lambda: sum(outcomes(engine).values()) >= published, "all to be handled")
        stack.wait_until(lambda: owned(stack) == 4, "four shards to be served again")
    assert outcomes(engine) == {"applied": published}
    assert quarantined(engine) == []


def owned(stack: Stack) -> int:
    return stack.number("SELECT count(*) FROM shards WHERE owner IS NOT NULL AND lease_until > now()")
