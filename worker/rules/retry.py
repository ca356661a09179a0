"""Computes the delays of retries and of the circuit breaker (docs/decisions/0008). Pure: no I/O, no clock."""

from dataclasses import dataclass

MAX_DOUBLINGS = 60  # 2**60 exceeds every cap; the limit keeps the power finite however long a service is down
CIRCUIT_FAILURES = 5
"""The number of failed calls in a row that opens a service's circuit."""
CIRCUIT_CAP_S = 30.0
"""The longest time in seconds between two probes of a failing service, unless the service asks for more.

A probe is a single call, so it can be frequent: the backlog then resumes soon after the service has recovered.
"""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """The retry schedule. All values are in seconds.

    `base_s` is the upper limit of the first delay; it doubles with each try. `cap_s` is the upper limit of every
    delay. `retry_for_s` is how long transient failures are retried, counted from the start of the first try,
    before the effect becomes `failed`.
    """

    base_s: float
    cap_s: float
    retry_for_s: float


def delay_before_retry(
    policy: RetryPolicy,
    *,
    tries: int,
    retrying_for_s: float,
    chance: float,
    retry_after_s: float | None = None,
) -> float | None:
    """Return the seconds to wait after a transient failure, or None to give up.

    The backoff is exponential with full jitter and a cap. A service's `Retry-After` is honoured up to the cap.

    Parameters:
        policy: the schedule.
        tries: the number of failed tries so far, at least 1. A retry by a person starts the count anew.
        retrying_for_s: seconds since the first of these tries.
        chance: a uniformly random number in [0, 1).
        retry_after_s: the wait that the service asked for, in seconds, or None.
    """
    if retrying_for_s >= policy.retry_for_s:
        return None
    ceiling = min(policy.cap_s, policy.base_s * 2.0 ** min(tries - 1, MAX_DOUBLINGS))
    return max(chance * ceiling, min(retry_after_s or 0.0, policy.cap_s))


def circuit_open_s(policy: RetryPolicy, *, failures: int, retry_after_s: float | None = None) -> float | None:
    """Return the seconds until a failing service is probed again, or None while its circuit stays closed.

    The backoff is exponential with a cap. It has no jitter, because the circuit is one row that all processes
    share, so there are no callers to spread. A service's `Retry-After` is honoured up to the policy's cap.

    Parameters:
        policy: the retry schedule.
        failures: the number of calls in a row that the service did not answer.
        retry_after_s: the wait that the service asked for, in seconds, or None.
    """
    if failures < CIRCUIT_FAILURES:
        return None
    doublings = min(failures - CIRCUIT_FAILURES, MAX_DOUBLINGS)
    delay_s = min(policy.base_s * 2.0**doublings, policy.cap_s, CIRCUIT_CAP_S)
    return max(delay_s, min(retry_after_s or 0.0, policy.cap_s))
