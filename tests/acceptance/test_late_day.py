"""A day's sessions, delivered late and out of order: no command touches another attempt than it means."""

from tests.acceptance.day import assert_a_late_day_is_understood
from tests.acceptance.harness import Stack


def test_a_day_that_arrives_late_and_out_of_order(stack: Stack) -> None:
    assert_a_late_day_is_understood(stack, seed=1)
