"""What a failed conversation with a mail server means: for this mail, for every mail, and for how many at once."""

import re
import smtplib

from worker.errors import Crowded, Misconfigured, Refused, ServiceError, Transient, Unavailable
from worker.lms.ports import Deadline

WHO = "the mail server"
URL_SETTING = "INVIGILATOR_SMTP_URL"
FROM_SETTING = "INVIGILATOR_EMAIL_FROM"

TOO_MANY = frozenset({421, 432})
"""What servers say to one connection too many. They say 421 before they go down, too, in answer to anything."""
NO_LOGIN = frozenset({530, 534, 535, 538})
"""A login is missing or refused, or is asked for over an encrypted connection (RFC 4954)."""
ABOUT_SIZE_OR_ADDRESS = frozenset({552, 555})
"""How a sender is refused because of what else MAIL says of this mail."""

# The enhanced status code (RFC 3463) at the beginning of an answer's text.
_ENHANCED = re.compile(r"[245]\.[0-9]{1,3}\.[0-9]{1,3}(?![0-9.])")


def failure(error: Exception, deadline: Deadline, others: int) -> ServiceError:
    """The error to raise for one of smtplib's, or of the connection.

    Parameters:
        error: what smtplib has raised.
        deadline: of the try.
        others: how many conversations with the server there are besides.
    """
    code, text = _answer_in(error)
    if 400 <= code <= 599:
        return _refusal(error, code, text, others)
    if not deadline.remaining_s():
        return deadline.late(WHO)
    if type(error) in _NO_LOGIN_IN_COMMON:
        message = f"{WHO} offers no way to log in that is known here; check {URL_SETTING}"
        return Misconfigured(message, setting=URL_SETTING)
    cause = type(error).__name__
    return Unavailable(f"the conversation with {WHO} broke ({cause}); check {URL_SETTING}")


def _refusal(error: Exception, code: int, text: str, others: int) -> ServiceError:
    for_now = "" if code >= 500 else " for now"
    enhanced = _ENHANCED.match(text)
    shown = f"{code} {enhanced[0]}" if enhanced else f"{code}"
    message = f"{WHO} refused {_refused(error, code)}{for_now} ({shown})"
    if code in TOO_MANY and others > 0:
        return Crowded(message, others=others)
    if _is_about_this_mail(error, code):
        return Refused(message) if code >= 500 else Transient(message)
    setting = _wrong_setting(error, code)
    return Unavailable(message) if setting is None else Misconfigured(message, setting=setting)


def _refused(error: Exception, code: int) -> str:
    if code in NO_LOGIN and not isinstance(error, smtplib.SMTPAuthenticationError):
        return "to go on without login or encryption"
    return _REFUSED.get(type(error), "the conversation")


_REFUSED: dict[type[Exception], str] = {
    smtplib.SMTPAuthenticationError: f"the user or password of {URL_SETTING}",
    smtplib.SMTPSenderRefused: f"{FROM_SETTING} as sender",
    smtplib.SMTPRecipientsRefused: "the recipient",
    smtplib.SMTPDataError: "the mail",
}


def _is_about_this_mail(error: Exception, code: int) -> bool:
    """Whether another mail may fare better."""
    if isinstance(error, smtplib.SMTPSenderRefused):
        return code in ABOUT_SIZE_OR_ADDRESS
    is_about_mail = isinstance(error, (smtplib.SMTPRecipientsRefused, smtplib.SMTPDataError))
    return is_about_mail and code not in NO_LOGIN | TOO_MANY


def _wrong_setting(error: Exception, code: int) -> str | None:
    """The setting that is refused for good, with every mail; None when it is none."""
    if code in NO_LOGIN:
        return URL_SETTING
    return _WRONG_FOR_GOOD.get(type(error)) if code >= 500 else None


_WRONG_FOR_GOOD: dict[type[Exception], str] = {
    smtplib.SMTPAuthenticationError: URL_SETTING,
    smtplib.SMTPSenderRefused: FROM_SETTING,
}

# What smtplib raises, apart from answers and broken connections, when the server knows no AUTH that it knows.
_NO_LOGIN_IN_COMMON = (smtplib.SMTPException, smtplib.SMTPNotSupportedError)


def _answer_in(error: Exception) -> tuple[int, str]:
    """The code and the text of the answer that smtplib has raised; -1 and nothing when it is none."""
    if isinstance(error, smtplib.SMTPRecipientsRefused):
        error = smtplib.SMTPResponseException(*next(iter(error.recipients.values())))
    if not isinstance(error, smtplib.SMTPResponseException):
        return -1, ""
    text = error.smtp_error
    return error.smtp_code, text.decode("ascii", "replace") if isinstance(text, bytes) else text
