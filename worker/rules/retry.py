"""When is a failed try made again? A decision, no I/O: chance and time are arguments."""

from dataclasses import dataclass

MAX_DOUBLINGS = 60  # beyond any cap; keeps 2**n a small number however long a service is down


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
        tries: how many tries have failed so far, at least 1.
        retrying_for_s: seconds since the first of them.
        chance: a uniformly random number in [0, 1).
        retry_after_s: what the service asked for, in seconds.
    """
    if retrying_for_s >= policy.retry_for_s:
        return None
    ceiling = min(policy.cap_s, policy.base_s * 2.0 ** min(tries - 1, MAX_DOUBLINGS))
    return max(chance * ceiling, min(retry_after_s or 0.0, policy.cap_s))
