"""The errors of the package `events`."""

from events.errors import InvalidMessageError, InvigilatorError, PublishError
from events.vocabulary import QuarantineCode


def test_an_error_explains_itself() -> None:
    assert str(InvigilatorError()) == "Something went wrong in Invigilator."
    assert str(InvigilatorError("a disk is full")) == "a disk is full"


def test_an_invalid_message_says_why() -> None:
    error = InvalidMessageError(QuarantineCode.NOT_JSON, "not UTF-8 at byte 0")

    assert str(error) == "not_json: not UTF-8 at byte 0"
    assert (error.reason, error.detail) == (QuarantineCode.NOT_JSON, "not UTF-8 at byte 0")


def test_a_publish_error_knows_the_command() -> None:
    assert PublishError("the broker is away", "5f0c").command_id == "5f0c"
    assert PublishError("the broker is away").command_id is None
