"""Puts everything together: from settings to objects."""

from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from db import prepared
from db.connect import make_engine
from db.errors import brief
from db.quarantine import Bounds
from events.broker_url import Kind, read_broker_url
from events.cloudevent import source_of
from worker import extras, patches, telemetry
from worker.commands.handler import Handler
from worker.commands.trust import load_trust
from worker.effects.action import Tools
from worker.effects.runner import Runner
from worker.effects.slots import Slots
from worker.engines import has_own_engines
from worker.errors import ConfigurationError
from worker.feeds.comparison import Comparison
from worker.kinds import Service
from worker.lms.connect import LOG, connect
from worker.lms.mail_templates import MailTemplates
from worker.logs import get_logger
from worker.policies import Policies, load_policies
from worker.rules.retry import RetryPolicy
from worker.settings import PREFIX, Settings
from worker.subscriptions import Subscriptions, load_subscriptions

logger = get_logger(__name__)

_REFUSED_BY_POOLER = "startup parameter"
"""PgBouncer says so of session settings, "unsupported startup parameter", in words that depend on its version."""
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


def runner(settings: Settings, threads: int | None = None) -> Runner:
    """Make what runs the effects of one worker process. A database that is away is only warned of.

    Parameters:
        threads: of the process. One webhook gets at most half of them.

    Raises:
        ConfigurationError: a setting is missing, the file of policies or a template is wrong, or there is a pooler
            that the settings do not tell of.
        UnfitDatabaseError: the database cannot hold every text.
    """
    engine = effects_engine(settings)
    services = connect(settings)
    # Mails that are only logged need no connection.
    connections = settings.max_calls if services.only_logs(Service.MAILER) else settings.smtp_max_connections
    runner = Runner(
        Tools(
            engine=engine,
            services=services,
            handler=handler(settings),
            retry=RetryPolicy(settings.retry_base_s, settings.retry_cap_s, settings.retry_for_s),
            lease_s=settings.lease_s,
            call_timeout_s=settings.call_timeout_s,
            slots=Slots(settings.max_calls, connections, threads),
            mail_templates=MailTemplates(settings.templates_dir),
            event_source=source_of(settings.instance),
        )
    )
    try:
        engine.connect().close()
    except DBAPIError as error:
        if _REFUSED_BY_POOLER in str(error.orig):
            raise ConfigurationError(
                "a pooler refuses the settings of sessions that prepare their statements: set "
                f"{PREFIX}DATABASE_POOLER=transaction, or give the workers a direct connection"
            ) from None
        logger.warning("the database is away", reason=brief(error))
    finally:
        engine.dispose()  # Celery may fork from here, and processes cannot share a connection
    return runner


def effects_engine(settings: Settings) -> Engine:
    """Make the engine of the effects. Its statements are prepared, unless a pooler shares the sessions.

    Nothing asks first whether a connection is alive: claims and results are repeated while the database is away.

    Raises:
        ConfigurationError: no database is configured.
    """
    prepares = settings.database_pooler == "none"
    return database_engine(
        settings,
        "effects",
        session_settings=prepared.SESSION_SETTINGS if prepares else "",
        pre_ping=not prepares,
    )


def warn_of_unreached(settings: Settings) -> None:
    """Warn of each service that is only logged. It takes engines of one's own for a sign that this is no trial."""
    if not has_own_engines(settings):
        return
    services = (
        (settings.lms_url, "LMS_URL", "calls to the LMS reach nobody", "the LMS"),
        (settings.smtp_url.get_secret_value(), "SMTP_URL", "mails reach nobody", "a mail server"),
    )
    for url, name, what, whom in services:
        if url == LOG:
            logger.warning(
                "a service is only logged",
                setting=f"{PREFIX}{name}",
                reason=what,
                hint=f"set it to the address of {whom}",
            )


def check_settings(settings: Settings) -> None:
    """Check now what the processes would check when they start.

    Raises:
        ConfigurationError: the file of policies, of command keys or of subscriptions, a mail's template, or the
            address of a service cannot be used, or a patch to leave out does not exist.
    """
    patches.check(settings)
    load_policies(settings.policies_file)
    load_trust(settings.command_keys_file)
    subscriptions(settings)
    MailTemplates(settings.templates_dir)
    connect(settings).close()


def offer_ttl_s(settings: Settings) -> float:
    """Return the seconds after which the relay offers an effect again that no worker has answered.

    It is at least the time of two calls.
    """
    return max(OFFER_POLLS * settings.poll_s, 2 * settings.call_timeout_s)
