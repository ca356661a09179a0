"""When is a failed try made again? A decision, no I/O: chance and time are arguments."""

from dataclasses import dataclass

MAX_DOUBLINGS = 60  # beyond any cap; keeps 2**n a small number however long a service is down
CIRCUIT_FAILURES = 5
"""So many calls in a row that a service does not answer open its circuit."""
CIRCUIT_CAP_S = 30.0
"""The longest that a circuit is open when the service does not ask for more: one call is a small price."""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """The retry schedule. All in seconds.

    `base_s`: the longest first delay. `cap_s`: the longest delay. `retry_for_s`: how long a transient
    failure is retried, counted from the first try, before the effect is `failed`.
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
    """Seconds to wait after a transient failure, or None to give up.

    Exponential with full jitter, capped; a service's `Retry-After` is honoured up to the cap.

    Parameters:
        policy: the schedule.
        tries: how many tries have failed so far, at least 1; those that a person has forgiven apart.
        retrying_for_s: seconds since the first of them.
        chance: a uniformly random number in [0, 1).
        retry_after_s: what the service asked for, in seconds.
    """
    if retrying_for_s >= policy.retry_for_s:
        return None
    ceiling = min(policy.cap_s, policy.base_s * 2.0 ** min(tries - 1, MAX_DOUBLINGS))
    return max(chance * ceiling, min(retry_after_s or 0.0, policy.cap_s))


def circuit_open_s(policy: RetryPolicy, *, failures: int, retry_after_s: float | None = None) -> float | None:
    """Seconds for which a failing service is left alone before one call probes it; None: it is not open yet.

    Exponential and capped, without chance: one row decides for every process, so there is nothing to spread.
    A service's `Retry-After` is honoured up to the policy's cap.

    Parameters:
        policy: the retry schedule.
        failures: how many calls in a row the service did not answer.
        retry_after_s: what the service asked for, in seconds.
    """
    if failures < CIRCUIT_FAILURES:
        return None
    doublings = min(failures - CIRCUIT_FAILURES, MAX_DOUBLINGS)
    delay_s = min(policy.base_s * 2.0**doublings, policy.cap_s, CIRCUIT_CAP_S)
    return max(delay_s, min(retry_after_s or 0.0, policy.cap_s))
