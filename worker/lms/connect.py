"""The services that effects call, and the adapters for them that the settings ask for."""

from collections.abc import Callable, Collection
from dataclasses import dataclass, fields

from worker.kinds import Service
from worker.lms.http import HttpLms
from worker.lms.log import LogLms, LogMailer, OnlyLogged
from worker.lms.ports import CreditService, InstructorService, Mailer
from worker.lms.smtp import SmtpMailer
from worker.settings import Settings

LOG = "log:"


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """The other side, as one process sees it; its threads share it. Each `Service` is a field.

    Parameters:
        close: frees what the adapters hold. It is called when no call is running any more.
    """

    credit: CreditService
    instructor: InstructorService
    mailer: Mailer
    close: Callable[[], None]

    def only_logs(self, service: str | None) -> bool:
        """Return whether calls to a service reach nobody, because its adapter only writes them to the log."""
        return service is not None and isinstance(getattr(self, service), OnlyLogged)


def check_services(services: type, known: Collection[str]) -> None:
    """Make sure that every service that an effect may call has its field.

    Raises:
        TypeError: a field or a `Service` is missing.
    """
    names = {field.name for field in fields(services)} - {"close"}
    if lonely := sorted(names ^ set(known)):
        raise TypeError(
            f"{lonely[0]} must be both a Service in worker/kinds.py and a field of {services.__name__}"
        )


check_services(Services, [*Service])


def connect(settings: Settings) -> Services:
    """Build the adapters. Nothing is connected before the first call.

    Raises:
        ConfigurationError: a setting that cannot work.
    """
    mailer = _mailer(settings)
    if settings.lms_url == LOG:
        log = LogLms()
        return Services(credit=log, instructor=log, mailer=mailer, close=_nothing)
    token = settings.lms_token.get_secret_value() if settings.lms_token else None
    lms = HttpLms(settings.lms_url, token)
    return Services(credit=lms, instructor=lms, mailer=mailer, close=lms.close)


def _mailer(settings: Settings) -> Mailer:
    url = settings.smtp_url.get_secret_value()
    return LogMailer() if url == LOG else SmtpMailer(url, settings.email_from)


def _nothing() -> None:
    """Free nothing: an adapter that only logs holds nothing."""
