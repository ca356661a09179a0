"""Every process killed with SIGKILL, again and again, in the middle of its work."""

import random

from tests.acceptance.harness import POLL_S, Stack
from tests.acceptance.load import feeding, load
from tests.acceptance.oracle import assert_nothing_lost_or_doubled

COMMANDS = 500
CONSUMER_KILLS = 8
WORKER_KILLS = 4
BATCH = 5  # small, so that there are many moments to be killed at


def test_nothing_is_lost_or_doubled(stack: Stack, calm_database_url: str) -> None:
    bodies = load(COMMANDS)
    for _ in range(2):
        stack.start("commands", BATCH_SIZE=BATCH)
    for name in ("relay", "effects"):
        stack.start(name)
    stack.lms.latency_s = 0.1
    with feeding(stack.client, bodies):
        _kill_consumers(stack, len(bodies))
    _kill_effect_workers(stack)
    stack.lms.latency_s = 0.0
    stack.settle()
    assert stack.number("SELECT count(*) FROM tries WHERE result = 'lost'") > 0, "kills hit calls"
    assert_nothing_lost_or_doubled(stack, calm_database_url)


def _kill_consumers(stack: Stack, commands: int) -> None:
    """Kill whoever has the shard, at moments spread over the load; each time another one starts to stand by."""
    chance = random.Random(2)
    for kill in range(1, CONSUMER_KILLS + 1):
        stack.wait_until_handled(commands * kill // (CONSUMER_KILLS + 1) + chance.randrange(BATCH))
        stack.some_owner().kill()
        stack.start("commands", BATCH_SIZE=BATCH)
        if kill % 3 == 0:
            _replace(stack, "relay")
    epoch = stack.number("SELECT epoch FROM shards")
    assert epoch >= CONSUMER_KILLS


def _kill_effect_workers(stack: Stack) -> None:
    """Kill workers while they call the LMS."""
    for kill in range(WORKER_KILLS):
        stack.wait_until(lambda: _in_hand(stack, "set_credit_status") > 0, "a call to be under way")
        _replace(stack, "effects")
        if kill == 1:
            # All mails are still to be sent, so some are under way for long enough.
            stack.start("mail")
            stack.wait_until(
                lambda: _in_hand(stack, "send_status_email") > 0,
                "a mail to be under way",
                longest_pause_s=POLL_S,
            )
            _replace(stack, "mail")
            _replace(stack, "relay")


def _in_hand(stack: Stack, kind: str) -> int:
    return stack.number(
        "SELECT count(*) FROM effects WHERE state = 'running' AND lease_until > now() AND kind = :kind",
        kind=kind,
    )


def _replace(stack: Stack, name: str) -> None:
    for process in stack.running(name):
        process.kill()
    stack.start(name)
