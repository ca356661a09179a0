"""Targets: readable, and never the same for two different credits."""

from hypothesis import given
from hypothesis import strategies as st

from worker.effects.kinds import MAX_TARGET_CHARS, credit_target

ids = st.text(min_size=1, max_size=255)


@given(st.tuples(ids, ids, ids), st.tuples(ids, ids, ids))
def test_targets_differ_when_credits_do(one: tuple[str, str, str], other: tuple[str, str, str]) -> None:
    assert (credit_target(*one) == credit_target(*other)) == (one == other)


@given(ids, ids, ids)
def test_a_target_fits_its_index(user_id: str, course_id: str, content_id: str) -> None:
    assert len(credit_target(user_id, course_id, content_id).encode()) <= MAX_TARGET_CHARS


def test_a_target_can_be_read() -> None:
    assert credit_target("42", "course-v1:X+Y", "a/b") == "credit:42/course-v1:X+Y/a%2Fb"
    assert credit_target("a/b", "c", "d") != credit_target("a", "b/c", "d")


def test_a_long_target_is_a_digest() -> None:
    long = credit_target("u" * 255, "c" * 255, "x" * 255)
    assert len(long) == len("credit:") + 64
    assert long != credit_target("u" * 255, "c" * 255, "y" * 255)
