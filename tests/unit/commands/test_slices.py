"""Which shard a command belongs to, while the number of shards changes and when it does not."""

import pytest

from events.commands import Command
from events.errors import InvalidMessageError
from tests import sample_commands as c
from worker.commands.slices import NotDrainedError, Slice


def learner(before: int, after: int) -> Command:
    """A command of a learner who goes from shard 0 of two to a shard of four, or back."""
    return c.command(c.learner(next(c.who_goes(before, after))))


def is_accepted(one: Slice, command: Command) -> bool:
    try:
        one.check(command)
    except InvalidMessageError:
        return False
    return True


def test_while_the_number_does_not_change() -> None:
    assert is_accepted(Slice(0, 2), learner(0, 2))
    assert not is_accepted(Slice(1, 2), learner(0, 2))
    assert is_accepted(Slice(1, 2), c.command(c.exam("of no learner")))


@pytest.mark.parametrize(
    ("shard", "drained", "accepted"),
    [
        (0, set(), True),  # the old one, until it has passed the barrier
        (0, {0}, False),
        (0, {1}, True),
        (2, {0}, True),  # the new one, from then on
        (2, {0, 1}, True),
        (1, {0}, False),
        (3, {0}, False),
        (3, set(), False),
    ],
)
def test_a_learner_who_moves(shard: int, drained: set[int], accepted: bool) -> None:
    assert is_accepted(Slice(shard, 2, 4, drained), learner(0, 2)) is accepted


@pytest.mark.parametrize("drained", [set(), {1}])
def test_on_the_new_shard_a_command_waits_for_the_old_one(drained: set[int]) -> None:
    with pytest.raises(NotDrainedError):
        Slice(2, 2, 4, drained).check(learner(0, 2))


@pytest.mark.parametrize("drained", [set(), {0}, {0, 1}])
def test_a_learner_who_stays(drained: set[int]) -> None:
    assert is_accepted(Slice(0, 2, 4, drained), learner(0, 0))
    assert not is_accepted(Slice(2, 2, 4, drained), learner(0, 0))


def test_the_number_that_counts_is_named() -> None:
    with pytest.raises(InvalidMessageError, match="belongs to shard 2 of 4 and came on 0,"):
        Slice(0, 2, 4, {0}).check(learner(0, 2))
    with pytest.raises(InvalidMessageError, match="belongs to shard 0 of 2 and came on 3,"):
        Slice(3, 2, 4).check(learner(0, 2))
