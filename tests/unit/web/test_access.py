"""How often somebody may call."""

from dataclasses import dataclass

import pytest

from invigilator.web.access import Bucket


@dataclass
class Clock:
    """A clock that stands still."""

    now: float = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_second_takes_as_many_calls_as_the_rate_says() -> None:
    clock = Clock()
    bucket = Bucket(3, clock)
    assert [bucket.take() for _ in range(3)] == [0, 0, 0]
    assert bucket.take() == pytest.approx(1 / 3)
    clock.now = 1 / 3
    assert bucket.take() == 0
    assert bucket.take() > 0


def test_nothing_is_saved_up_beyond_a_second() -> None:
    clock = Clock()
    bucket = Bucket(2, clock)
    clock.now = 1_000.0
    assert [bucket.take() > 0 for _ in range(3)] == [False, False, True]
