"""Which adapters the settings ask for."""

from collections.abc import Callable
from dataclasses import dataclass

from worker.lms.http import HttpLms
from worker.lms.log import LogLms, LogMailer
from worker.lms.ports import CreditService, InstructorService, Mailer
from worker.lms.smtp import SmtpMailer
from worker.settings import Settings

LOG = "log:"


@dataclass(frozen=True, slots=True)
class Services:
    """The other side, as one process sees it; its threads share it."""

    credit: CreditService
    instructor: InstructorService
    mailer: Mailer
    close: Callable[[], None]  # to be called once no call is running


def connect(settings: Settings) -> Services:
    """Build the adapters. Nothing is connected before the first call.

    Raises:
        ConfigurationError: a setting that cannot work.
    """
    mailer = _mailer(settings)
    if settings.lms_url == LOG:
        log = LogLms()
        return Services(log, log, mailer, close=_nothing)
    token = settings.lms_token.get_secret_value() if settings.lms_token else None
    lms = HttpLms(settings.lms_url, token)
    return Services(lms, lms, mailer, close=lms.close)


def _mailer(settings: Settings) -> Mailer:
    url = settings.smtp_url.get_secret_value()
    return LogMailer() if url == LOG else SmtpMailer(url, settings.email_from)


def _nothing() -> None:
    pass
