"""Errors of the worker.

A `Transient` error is retried, a `Permanent` one is not. `Unavailable` and `Misconfigured` also count against the
circuit breaker of the service (docs/decisions/0008).
"""

from events.errors import InvigilatorError


class ConfigurationError(InvigilatorError):
    """A setting is missing or wrong. The message names the setting and says what is allowed."""

    code = "configuration"


class ServiceError(InvigilatorError):
    """A call to an external service (LMS or mail server) failed. Every subclass is transient or permanent.

    `status` is what the service has answered, a status of HTTP or a code of SMTP, or None when it has not. `reason`
    is the word by which the answer says why, or None.
    """

    code = "service"

    def __init__(
        self, message: str | None = None, *, status: int | None = None, reason: str | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason


class Transient(ServiceError):  # noqa: N818 - the field's word for it
    """The call failed and may succeed later.

    `retry_after_s` is the wait in seconds that the service asked for, or None.
    """

    code = "transient"

    def __init__(
        self,
        message: str | None = None,
        *,
        retry_after_s: float | None = None,
        status: int | None = None,
        reason: str | None = None,
    ) -> None:
        super().__init__(message, status=status, reason=reason)
        self.retry_after_s = retry_after_s


class Unavailable(Transient):
    """The service as a whole did not answer, so other calls to it will fail as well.

    Several such failures in a row open the service's circuit.
    """

    code = "unavailable"


class Misconfigured(Unavailable):
    """The service refuses something that is the same in every call, such as our credentials.

    A person must correct a setting; `setting` is its name. A single such failure opens the service's circuit.
    """

    code = "misconfigured"

    def __init__(
        self, message: str, *, setting: str, status: int | None = None, reason: str | None = None
    ) -> None:
        super().__init__(message, status=status, reason=reason)
        self.setting = setting


class Crowded(Transient):
    """The service takes no more of our calls at the same time.

    `others` is the number of our other calls that it was serving at that moment.
    """

    code = "crowded"

    def __init__(
        self, message: str, *, others: int, status: int | None = None, reason: str | None = None
    ) -> None:
        super().__init__(message, status=status, reason=reason)
        self.others = others


class Gone(Transient):
    """The endpoint wants no more calls. It is switched off, and what it is owed waits for a person."""

    code = "gone"


class NotCalled(Transient):
    """The service was not called, because something that the call needs is missing for now.

    The error says nothing about the service, so it does not count against its circuit.
    """

    code = "not_called"


class Permanent(ServiceError):  # noqa: N818 - the field's word for it
    """The call was refused. It will fail again until a person corrects something."""

    code = "permanent"


class Refused(Permanent):
    """The service itself refused the call, which shows that the service is up. This closes its circuit."""

    code = "refused"


class TryFailedError(InvigilatorError):
    """A try has failed, and that is recorded. Its task raises this, so that Flower shows FAILURE and the reason."""

    code = "try_failed"


class TryAgainError(TryFailedError):
    """A try has failed and the effect is still owed: the relay will offer it again. Flower shows RETRY."""

    code = "try_again"
