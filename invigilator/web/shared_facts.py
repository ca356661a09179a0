"""The facts of health, read once for all who ask. A silent broker holds nobody up."""

import threading
from collections.abc import Callable
from concurrent.futures import Future

from events.errors import InvigilatorError
from worker.health.facts import Facts
from worker.threads import begin

BROKER_S = 4.0
"""Seconds after which a caller does without the broker."""


class SilentBrokerError(InvigilatorError):
    """The broker does not answer."""

    code = "silent_broker"


class SharedFacts:
    """Reads facts, once for all who ask meanwhile.

    Parameters:
        read: reads them, from the database and the broker.

    Example:
        >>> SharedFacts(Facts)().quarantined
        0
    """

    def __init__(self, read: Callable[[], Facts]) -> None:
        self._read = read
        self._lock = threading.Lock()
        self._answer: Future[Facts] | None = None

    def __call__(self) -> Facts:
        """Return the facts. Reading that hangs is not begun again before it has ended.

        Raises:
            SilentBrokerError: there is no answer within `BROKER_S`. The broker is the likely reason.
            Exception: what reading raises.
        """
        with self._lock:
            if self._answer is None or self._answer.done():
                self._answer = begin(self._read)
            answer = self._answer
        try:
            return answer.result(BROKER_S)
        except TimeoutError:
            raise SilentBrokerError(
                f"the broker does not answer: nothing came within {BROKER_S:g} s"
            ) from None
