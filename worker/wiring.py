"""Puts everything together: from settings to objects."""

from sqlalchemy import Engine

from db.connect import make_engine
from db.quarantine import Bounds
from events.broker_url import Kind, read_broker_url
from worker import extras, telemetry
from worker.commands.handler import Handler
from worker.errors import ConfigurationError
from worker.feeds.comparison import Comparison
from worker.logs import get_logger
from worker.policies import Policies, load_policies
from worker.settings import Settings
from worker.subscriptions import Subscriptions, load_subscriptions

logger = get_logger(__name__)

OFFER_POLLS = 5
"""An offer that no worker answers is made again after so many polls."""


def database_engine(
    settings: Settings,
    name: str,
    *,
    session_settings: str = "",
    pre_ping: bool = True,
    autocommit: bool = False,
) -> Engine:
    """Make the engine of a process. The other parameters are those of `make_engine`.

    Parameters:
        name: `pg_stat_activity` shows it.

    Raises:
        ConfigurationError: no database is configured.
    """
    if settings.database_url is None:
        raise ConfigurationError("no database is configured: set INVIGILATOR_DATABASE_URL")
    return make_engine(
        settings.database_url.get_secret_value(),
        application_name=f"invigilator {name}",
        session_settings=session_settings,
        pre_ping=pre_ping,
        autocommit=autocommit,
    )


def broker_url(settings: Settings) -> str:
    """Return the broker's URL.

    Raises:
        ConfigurationError: no broker is configured.
    """
    if settings.broker_url is None:
        raise ConfigurationError("no broker is configured: set INVIGILATOR_BROKER_URL")
    return settings.broker_url.get_secret_value()


def start_traces(settings: Settings, process: str) -> None:
    """Send spans from now on, if OpenTelemetry's variables say where to.

    Parameters:
        settings: with the broker's address.
        process: what this process is, such as `consume`.

    Raises:
        ConfigurationError: no broker is configured.
    """
    kind = read_broker_url(broker_url(settings)).kind
    telemetry.start(process, "rabbitmq" if kind is Kind.AMQP else "redis")


def policies(settings: Settings) -> Policies:
    """Return the policies of the settings' file, without credit if the platform sets that itself.

    Raises:
        ConfigurationError: the file cannot be used.
    """
    read = load_policies(settings.policies_file)
    return read if settings.credit == "on" else read.without_credit()


def subscriptions(settings: Settings) -> Subscriptions:
    """Return who subscribes, for the process that publishes to them.

    Raises:
        ConfigurationError: the file cannot be used, or a package is missing that a subscriber needs.
    """
    read = load_subscriptions(settings.subscriptions_file)
    if read.openedx:
        extras.need(extras.OPENEDX, f"[openedx.{next(iter(read.openedx))}] of {settings.subscriptions_file}")
    return read


def comparison(settings: Settings, subscribed: Subscriptions) -> Comparison | None:
    """Make what warns when a process's file of subscriptions is not what counts. None where there is no file.

    Parameters:
        subscribed: what the file says.
    """
    file = settings.subscriptions_file
    return None if file is None else Comparison(database_engine(settings, "subscriptions"), file, subscribed)


def handler(settings: Settings) -> Handler:
    """Make the one writer of attempts, with the policies of the settings' file."""
    return Handler(
        policies(settings),
        instructor=settings.instructor == "on",
        bounds=Bounds(settings.quarantine_max, settings.quarantine_max_mb),
        believe_time_for_s=settings.believe_time_for_s,
    )


def offer_ttl_s(settings: Settings) -> float:
    """Return the seconds after which the relay offers an effect again that no worker has answered.

    It is at least the time of two calls.
    """
    return max(OFFER_POLLS * settings.poll_s, 2 * settings.call_timeout_s)
