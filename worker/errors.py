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


class Misconfigured(Unavailable):
    """The service refuses what is the same in every call, such as our credentials: a setting has to be mended.

    One is enough to open its circuit. `setting` is the name of what to look at.
    """

    code = "misconfigured"

    def __init__(self, message: str, *, setting: str) -> None:
        super().__init__(message)
        self.setting = setting


class Crowded(Transient):
    """The service serves others of our calls, and takes no more of them at once.

    `others` is how many of ours it had at that moment, this one apart.
    """

    code = "crowded"

    def __init__(self, message: str, *, others: int) -> None:
        super().__init__(message)
        self.others = others


class NotCalled(Transient):
    """The service was not called, because what the call needs is missing for now. It says nothing about it."""

    code = "not_called"


class Permanent(ServiceError):  # noqa: N818 - the field's word for it
    """The call was refused; asking again will not help before somebody mends something."""

    code = "permanent"


class Refused(Permanent):
    """The service itself refused the call, and so is up."""

    code = "refused"
