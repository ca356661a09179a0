"""Says what a failed conversation with the mail server means.

It means one of three things: this mail is refused, the server or a setting is wrong, or we have too many
connections.
"""

import re
import smtplib
from typing import TypedDict

from worker.errors import Crowded, Misconfigured, Refused, ServiceError, Transient, Unavailable
from worker.lms.ports import Deadline

MAIL_SERVER = "the mail server"
URL_SETTING = "INVIGILATOR_SMTP_URL"
FROM_SETTING = "INVIGILATOR_EMAIL_FROM"

TOO_MANY_CONNECTIONS = frozenset({421, 432})
"""Codes for too many connections. A server that shuts down also answers 421, to any command."""
LOGIN_FAILED = frozenset({530, 534, 535, 538})
"""Codes for a login that is missing, refused, or allowed on an encrypted connection only (RFC 4954)."""
ABOUT_SIZE_OR_PARAMETER = frozenset({552, 555})
"""Codes of a refused MAIL that concern this mail and not the sender: its size, or a parameter such as SMTPUTF8."""

# The enhanced status code (RFC 3463) at the beginning of an answer's text.
_ENHANCED = re.compile(r"[245]\.[0-9]{1,3}\.[0-9]{1,3}(?![0-9.])")


def service_error(error: Exception, deadline: Deadline, others: int) -> ServiceError:
    """Return the error of the worker for an error of smtplib or of the connection.

    Parameters:
        error: the error that smtplib raised.
        deadline: the deadline of the try.
        others: the number of other conversations with the server at this moment.
    """
    code, text = _answer_in(error)
    if 400 <= code <= 599:
        return _refusal(error, code, text, others)
    if not deadline.remaining_s():
        return deadline.late(MAIL_SERVER)
    if type(error) in _NO_COMMON_AUTH:
        message = f"{MAIL_SERVER} offers no way to log in that is known here; check {URL_SETTING}"
        return Misconfigured(message, setting=URL_SETTING)
    cause = type(error).__name__
    return Unavailable(f"the conversation with {MAIL_SERVER} broke ({cause}); check {URL_SETTING}")


def _refusal(error: Exception, code: int, text: str, others: int) -> ServiceError:
    for_now = "" if code >= 500 else " for now"
    enhanced = _ENHANCED.match(text)
    shown = f"{code} {enhanced[0]}" if enhanced else f"{code}"
    message = f"{MAIL_SERVER} refused {_refused(error, code)}{for_now} ({shown})"
    said: _Said = {"status": code, "reason": enhanced[0] if enhanced else None}
    if code in TOO_MANY_CONNECTIONS and others > 0:
        return Crowded(message, others=others, **said)
    if _is_about_this_mail(error, code):
        return Refused(message, **said) if code >= 500 else Transient(message, **said)
    setting = _wrong_setting(error, code)
    return (
        Unavailable(message, **said) if setting is None else Misconfigured(message, setting=setting, **said)
    )


class _Said(TypedDict):
    status: int
    reason: str | None


def _refused(error: Exception, code: int) -> str:
    if code in LOGIN_FAILED and not isinstance(error, smtplib.SMTPAuthenticationError):
        return "to go on without login or encryption"
    return _REFUSED.get(type(error), "the conversation")


_REFUSED: dict[type[Exception], str] = {
    smtplib.SMTPAuthenticationError: f"the user or password of {URL_SETTING}",
    smtplib.SMTPSenderRefused: f"{FROM_SETTING} as sender",
    smtplib.SMTPRecipientsRefused: "the recipient",
    smtplib.SMTPDataError: "the mail",
}


def _is_about_this_mail(error: Exception, code: int) -> bool:
    """Return whether the answer concerns this mail only, so that another mail may succeed."""
    if isinstance(error, smtplib.SMTPSenderRefused):
        return code in ABOUT_SIZE_OR_PARAMETER
    is_about_mail = isinstance(error, (smtplib.SMTPRecipientsRefused, smtplib.SMTPDataError))
    return is_about_mail and code not in LOGIN_FAILED | TOO_MANY_CONNECTIONS


def _wrong_setting(error: Exception, code: int) -> str | None:
    """Return the name of the setting that the server refuses for every mail, or None when it is not a setting."""
    if code in LOGIN_FAILED:
        return URL_SETTING
    return _WRONG_FOR_GOOD.get(type(error)) if code >= 500 else None


_WRONG_FOR_GOOD: dict[type[Exception], str] = {
    smtplib.SMTPAuthenticationError: URL_SETTING,
    smtplib.SMTPSenderRefused: FROM_SETTING,
}

# smtplib raises exactly these classes when it shares no AUTH mechanism with the server. Subclasses mean other
# things.
_NO_COMMON_AUTH = (smtplib.SMTPException, smtplib.SMTPNotSupportedError)


def _answer_in(error: Exception) -> tuple[int, str]:
    """Return the code and the text of the server's answer in the error, or -1 and "" when there was no answer."""
    if isinstance(error, smtplib.SMTPRecipientsRefused):
        error = smtplib.SMTPResponseException(*next(iter(error.recipients.values())))
    if not isinstance(error, smtplib.SMTPResponseException):
        return -1, ""
    text = error.smtp_error
    return error.smtp_code, text.decode("ascii", "replace") if isinstance(text, bytes) else text
