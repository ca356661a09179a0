"""Puts together what runs effects, and checks the settings of all parts.

It is apart from `worker.wiring`, because `consume` and `relay` need neither an HTTP client nor templates.
"""

from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from db import prepared
from db.errors import brief
from events.cloudevent import source_of
from worker import patches
from worker.commands.trust import load_trust
from worker.effects.action import Tools
from worker.effects.runner import Runner
from worker.effects.slots import Slots
from worker.engines import has_own_engines
from worker.errors import ConfigurationError
from worker.kinds import Service
from worker.lms.connect import LOG, connect
from worker.lms.mail_templates import MailTemplates
from worker.logs import get_logger
from worker.policies import load_policies
from worker.rules.retry import RetryPolicy
from worker.settings import PREFIX, Settings
from worker.wiring import database_engine, handler, subscriptions

logger = get_logger(__name__)

_REFUSED_BY_POOLER = "startup parameter"
"""PgBouncer says so of session settings, "unsupported startup parameter", in words that depend on its version."""


def runner(settings: Settings, threads: int | None = None) -> Runner:
    """Make what runs the effects of one worker process. A database that is away is only warned of.

    Parameters:
        threads: of the process: see `Slots`.

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
