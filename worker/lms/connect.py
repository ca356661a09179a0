"""The services that effects call, and the adapters for them that the settings ask for."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, fields

from worker.kinds import Service
from worker.lms.credentials import Anonymous, BearerToken, Credentials
from worker.lms.http import HttpLms
from worker.lms.http_client import Network
from worker.lms.log import LogLms, LogMailer, OnlyLogged
from worker.lms.network import AUTHORIZATION, HEADERS_SETTING, checked_headers, checked_proxy, tls_context
from worker.lms.oauth import ClientCredentials
from worker.lms.ports import CreditService, InstructorService, Mailer, WebhookSender
from worker.lms.smtp import SmtpMailer
from worker.lms.webhooks import HttpWebhooks
from worker.settings import Settings
from worker.subscriptions import load_subscriptions

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
    webhooks: WebhookSender
    close: Callable[[], None]

    def only_logs(self, service: str | None) -> bool:
        """Return whether calls to a service reach nobody, because its adapter only writes them to the log."""
        return service is not None and isinstance(getattr(self, service), OnlyLogged)


def check_services(services: type, known: Collection[str]) -> None:
    """Make sure that every service that an effect may call has its field.

    Raises:
        TypeError: a field or a `Service` is missing.
    """
    names = {one.name for one in fields(services)} - {"close"}
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
    webhooks = HttpWebhooks(load_subscriptions(settings.subscriptions_file).webhooks())
    if settings.lms_url == LOG:
        log = LogLms()
        return Services(credit=log, instructor=log, mailer=mailer, webhooks=webhooks, close=webhooks.close)
    lms = connect_lms(settings, credentials(settings))

    def close() -> None:
        lms.close()
        webhooks.close()

    return Services(credit=lms, instructor=lms, mailer=mailer, webhooks=webhooks, close=close)


def connect_lms(settings: Settings, credentials: Credentials) -> HttpLms:
    """Build a client of the LMS. Nothing is connected before the first call.

    Parameters:
        settings: with the LMS's URL, and what stands between us and it.
        credentials: who calls.

    Raises:
        ConfigurationError: a setting that cannot work.
    """
    network = Network(
        tls=tls_context(settings.lms_cert, settings.lms_key),
        proxy=checked_proxy(settings.lms_proxy.get_secret_value()) if settings.lms_proxy else None,
        headers=_headers(settings),
    )
    return HttpLms(settings.lms_url, credentials, network)


def credentials(settings: Settings) -> Credentials:
    """Return how the settings want calls to show the LMS who calls.

    Raises:
        ConfigurationError: a setting that cannot work.
    """
    if settings.lms_token:
        return BearerToken(settings.lms_token.get_secret_value())
    url, name, secret = (
        settings.lms_oauth_token_url,
        settings.lms_oauth_client_id,
        settings.lms_oauth_client_secret,
    )
    if url and name and secret:
        return ClientCredentials(url, name, secret.get_secret_value(), settings.lms_oauth_scope)
    signed_in_by_header = any(header.lower() == AUTHORIZATION for header in _headers(settings))
    return Anonymous(HEADERS_SETTING) if signed_in_by_header else Anonymous()


def _headers(settings: Settings) -> Mapping[str, str]:
    if settings.lms_headers is None:
        return {}
    signed_in = bool(settings.lms_token or settings.lms_oauth_token_url)
    return checked_headers(settings.lms_headers.get_secret_value(), signed_in=signed_in)


def _mailer(settings: Settings) -> Mailer:
    url = settings.smtp_url.get_secret_value()
    return LogMailer() if url == LOG else SmtpMailer(url, settings.email_from)
