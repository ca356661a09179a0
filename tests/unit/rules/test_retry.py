"""The delays of retries and of the circuit breaker."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.rules.retry import (
    CIRCUIT_CAP_S,
    CIRCUIT_FAILURES,
    RetryPolicy,
    circuit_open_s,
    delay_before_retry,
)

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


@pytest.mark.parametrize(
    ("failures", "seconds"), [(4, None), (5, 2), (6, 4), (8, 16), (9, 30), (10, 30), (100_000, 30)]
)
def test_a_circuit_is_open_for_longer_and_longer_up_to_a_cap(failures: int, seconds: float | None) -> None:
    assert circuit_open_s(POLICY, failures=failures) == seconds


@pytest.mark.parametrize(("retry_after_s", "seconds"), [(None, 2), (1, 2), (100, 100), (1e9, 3600)])
def test_a_circuit_is_open_for_as_long_as_the_service_asks(
    retry_after_s: float | None, seconds: float
) -> None:
    assert circuit_open_s(POLICY, failures=CIRCUIT_FAILURES, retry_after_s=retry_after_s) == seconds


def test_a_circuit_is_never_open_for_longer_than_the_longest_delay() -> None:
    policy = RetryPolicy(base_s=0.1, cap_s=0.5, retry_for_s=60)
    assert circuit_open_s(policy, failures=CIRCUIT_FAILURES) == 0.1
    assert circuit_open_s(policy, failures=100, retry_after_s=CIRCUIT_CAP_S) == 0.5
