"""The retry schedule."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.rules.retry import RetryPolicy, delay_before_retry

POLICY = RetryPolicy(base_s=2, cap_s=3600, retry_for_s=604_800)


@given(
    tries=st.integers(1, 10_000),
    chance=st.floats(0, 1, exclude_max=True),
    retry_after_s=st.one_of(st.none(), st.floats(0, 1e9)),
)
def test_a_delay_is_within_its_bounds(tries: int, chance: float, retry_after_s: float | None) -> None:
    delay = delay_before_retry(
        POLICY, tries=tries, retrying_for_s=0, chance=chance, retry_after_s=retry_after_s
    )
    assert delay is not None
    assert 0 <= delay <= POLICY.cap_s
    assert delay >= min(retry_after_s or 0, POLICY.cap_s)


@pytest.mark.parametrize(("tries", "longest"), [(1, 2), (2, 4), (5, 32), (11, 2048), (12, 3600), (999, 3600)])
def test_delays_grow_exponentially_to_the_cap(tries: int, longest: float) -> None:
    assert delay_before_retry(POLICY, tries=tries, retrying_for_s=0, chance=0.5) == longest / 2


@pytest.mark.parametrize(("retrying_for_s", "gives_up"), [(604_799, False), (604_800, True), (1e9, True)])
def test_giving_up(retrying_for_s: float, gives_up: bool) -> None:
    delay = delay_before_retry(POLICY, tries=3, retrying_for_s=retrying_for_s, chance=0.5)
    assert (delay is None) == gives_up
