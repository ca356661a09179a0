"""Before the demo starts its workers: would they do the work of others?

The demo's workers deliver every effect that is due to a reference LMS, which forgets it. What somebody else's
system still owes must never get there.
"""

import time

from sqlalchemy import Connection, func, select

from db.connect import make_engine
from db.migrate import upgrade
from db.models import Effect, Shard
from invigilator.demo.session import source_of
from invigilator.demo.session_queries import OPEN
from worker.commands.sources.depth import queued
from worker.errors import ConfigurationError
from worker.settings import Settings

ADVICE = (
    "give the demo a database and a broker of its own, or the embedded ones, by a new INVIGILATOR_DATA_DIR"
)
CHECK_S = 0.2


def prepare(database_url: str, patience_s: float) -> None:
    """Bring the database to the current schema, and make sure that it is the demo's to use.

    Parameters:
        patience_s: how long to wait for the end of a lease that a killed process may have left.

    Raises:
        ConfigurationError: another system works on it, or owes something.
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
    """Raises `ConfigurationError` when somebody consumes commands from this database's shards."""
    owned = select(func.count()).select_from(Shard).where(Shard.lease_until > func.clock_timestamp())
    give_up = time.monotonic() + patience_s
    while connection.scalar(owned):
        if time.monotonic() >= give_up:
            raise ConfigurationError(f"another system works on this database: {ADVICE}")
        time.sleep(CHECK_S)


def refuse_owed(connection: Connection) -> None:
    """Raises `ConfigurationError` when effects of others than the demo wait."""
    owed = connection.scalar(
        select(func.count())
        .select_from(Effect)
        .where(Effect.state.in_(OPEN), ~Effect.source.startswith(source_of("")))
    )
    if owed:
        raise ConfigurationError(f"this database still owes {owed} effects to a real LMS: {ADVICE}")


def refuse_queued(settings: Settings) -> None:
    """Make sure that nobody's commands wait in a broker that is configured.

    The embedded one is not looked at: it is not up yet, and what an interrupted demo left there is harmless.

    Raises:
        ConfigurationError: some do; they would owe effects that the reference LMS then gets.
        BrokerAwayError: the broker cannot be reached.
    """
    if settings.broker_url is None:
        return
    waiting = queued(settings.broker_url.get_secret_value(), settings.command_shards)
    if waiting:
        raise ConfigurationError(f"{waiting} commands wait in the broker: {ADVICE}")
