"""The errors of the wire, and `InvigilatorError`, the root of every error of this project."""

from typing import ClassVar

from .vocabulary import QuarantineCode


class InvigilatorError(Exception):
    """Something went wrong in Invigilator."""

    code: ClassVar[str] = "error"

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or (type(self).__doc__ or "").strip())


class InvalidMessageError(InvigilatorError):
    """The message is not a valid command.

    Parameters:
        reason: the quarantine code.
        detail: one line that says what is wrong. It never quotes values, which may be personal.
    """

    code = "invalid_message"

    def __init__(self, reason: QuarantineCode, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class PublishError(InvigilatorError):
    """The broker did not take the command; publish it again with the same id.

    Parameters:
        message: for a person.
        command_id: that id; None when the message was no command.
    """

    code = "publish_failed"

    def __init__(self, message: str | None = None, command_id: str | None = None) -> None:
        super().__init__(message)
        self.command_id = command_id


class ShardsMismatchError(PublishError):
    """The publisher was told another number of shards than the broker says. Nothing was sent."""

    code = "shards_mismatch"


class UnsuitableBrokerError(InvigilatorError):
    """The server that answered cannot be our broker. The text says why. It continues a sentence: "the broker …"."""

    code = "unsuitable_broker"


class InvalidWebhookError(InvigilatorError):
    """A request is no webhook of ours: its signature, its time or its body is wrong."""

    code = "invalid_webhook"
