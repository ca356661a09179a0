"""A day's sessions, delivered late and out of order: no command touches another attempt than it means."""

from tests.acceptance.day import assert_right_attempts_at_the_right_times, introductions, late_day
from tests.acceptance.harness import Stack


def test_a_day_that_arrives_late_and_out_of_order(stack: Stack) -> None:
    day = late_day(seed=1)
    stack.client.publish([*introductions(), *day])
    stack.start("commands", BATCH_SIZE=7)
    stack.settle_commands()
    assert_right_attempts_at_the_right_times(stack, day)
