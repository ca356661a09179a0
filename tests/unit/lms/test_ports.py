import pytest

from worker.errors import Transient
from worker.lms.ports import Deadline


def test_a_deadline_counts_down_and_stops_at_zero() -> None:
    assert 0 < Deadline.after(3600).remaining_s() <= 3600
    assert Deadline.after(-1).remaining_s() == 0


def test_a_deadline_that_has_passed_says_what_took_how_long() -> None:
    with pytest.raises(Transient, match=r"^the call took longer than 0 s$"):
        Deadline.after(0).check("the call")


def test_a_deadline_ahead_is_nothing_to_raise_about() -> None:
    Deadline.after(3600).check("the call")
