"""The facts of health, read once for all who ask. A silent broker holds nobody up."""

from collections.abc import Callable

from events.errors import InvigilatorError
from invigilator.web.shared_answer import SharedAnswer
from worker.health.facts import Facts

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
        self._shared = SharedAnswer(read)

    def __call__(self) -> Facts:
        """Return the facts. Reading that hangs is not begun again before it has ended.

        Raises:
            SilentBrokerError: there is no answer within `BROKER_S`. The broker is the likely reason.
            Exception: what reading raises.
        """
        try:
            return self._shared.begun().result(BROKER_S)
        except TimeoutError:
            raise SilentBrokerError(
                f"the broker does not answer: nothing came within {BROKER_S:g} s"
            ) from None
