"""Checks before the demo starts that no other system's work is in the database or the broker.

The demo's workers deliver every due effect to a reference LMS, which keeps nothing. The effects of another system
would be lost there.
"""

import time

from sqlalchemy import Connection, func, select

from db.connect import make_engine
from db.migrate import upgrade
from db.models import Effect, Shard
from invigilator.demo.session import source_of
from invigilator.demo.session_queries import OPEN
from worker.commands.sources.brokers import queued
from worker.errors import ConfigurationError
from worker.settings import Settings

ADVICE = (
    "give the demo a database and a broker of its own, or the embedded ones, by a new INVIGILATOR_DATA_DIR"
)
CHECK_S = 0.2


def prepare(database_url: str, patience_s: float) -> None:
    """Bring the database to the current schema, and make sure that no other system uses it.

    Parameters:
        database_url: the URL of the database.
        patience_s: seconds to wait for the end of a lease that a killed process may have left.

    Raises:
        ConfigurationError: another system works on the database, or owes effects in it.
    """
    upgrade(database_url)
    engine = make_engine(database_url, application_name="invigilator demo")
    try:
        with engine.connect() as connection:
            refuse_running(connection, patience_s)
            refuse_owed(connection)
    finally:
        engine.dispose()


def refuse_running(connection: Connection, patience_s: float) -> None:
    """Make sure that no process consumes commands for the database's shards.

    Raises:
        ConfigurationError: a shard's lease is still held after `patience_s` seconds.
    """
    owned = select(func.count()).select_from(Shard).where(Shard.lease_until > func.clock_timestamp())
    give_up = time.monotonic() + patience_s
    while connection.scalar(owned):
        if time.monotonic() >= give_up:
            raise ConfigurationError(f"another system works on this database: {ADVICE}")
        time.sleep(CHECK_S)


def refuse_owed(connection: Connection) -> None:
    """Make sure that no effect is pending or running except the demo's own.

    Raises:
        ConfigurationError: the database owes effects of another source.
    """
    owed = connection.scalar(
        select(func.count())
        .select_from(Effect)
        .where(Effect.state.in_(OPEN), ~Effect.source.startswith(source_of("")))
    )
    if owed:
        raise ConfigurationError(f"this database still owes {owed} effects to a real LMS: {ADVICE}")


def refuse_queued(settings: Settings) -> None:
    """Make sure that no commands wait in a configured broker.

    The embedded broker is not checked. It is not up yet, and commands that an interrupted demo left there are
    harmless.

    Raises:
        ConfigurationError: commands wait. Their effects would go to the reference LMS.
        BrokerAwayError: the broker cannot be reached.
    """
    if settings.broker_url is None:
        return
    waiting = queued(settings.broker_url.get_secret_value(), settings.command_shards)
    if waiting:
        raise ConfigurationError(f"{waiting} commands wait in the broker: {ADVICE}")
