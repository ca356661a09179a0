"""Errors of the worker. `Transient` is worth another try, `Permanent` is not."""

from events.errors import InvigilatorError


class ConfigurationError(InvigilatorError):
    """A setting is missing or wrong; the message names it and says what is allowed."""

    code = "configuration"


class ServiceError(InvigilatorError):
    """A service on the other side did not do what was asked."""

    code = "service"


class Transient(ServiceError):  # noqa: N818 - the field's word for it
    """The call failed and may succeed later.

    `retry_after_s` is how long the service asked us to wait, in seconds, or None.
    """

    code = "transient"

    def __init__(self, message: str | None = None, *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Unavailable(Transient):
    """The service as a whole did not answer: whoever calls it next will fare no better.

    Such failures in a row open its circuit.
    """

    code = "unavailable"


class Permanent(ServiceError):  # noqa: N818 - the field's word for it
    """The call was refused; asking again will not help before somebody mends something."""

    code = "permanent"


class Refused(Permanent):
    """The service itself refused the call, and so is up."""

    code = "refused"
