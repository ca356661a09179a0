"""Looks at the configuration and what it leads to, and says what to do. It changes nothing."""

import platform
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from db import partitioning, partitions, resharding, rights
from db.compatibility import compare, head, schema_revision
from db.connect import limit_statements
from db.errors import brief
from events.broker_url import Kind, read_broker_url
from events.errors import InvigilatorError
from events.sharding import queue_name
from worker.commands.sources.brokers import about, depths
from worker.effects_wiring import check_settings
from worker.engines import has_own_engines
from worker.findings import Finding, Verdict
from worker.lms.connect import LOG
from worker.settings import PREFIX, Settings

OLDEST_POSTGRESQL = 140_000
STATEMENT_TIMEOUT_S = 10
CLOCK_NOTE_S = 1.0
CLOCK_PROBLEM_S = 60.0
"""Times that a command says are believed up to so many seconds ahead of the database's clock."""
MANY_CONNECTIONS = 0.8
CLASSIC_IN_A_CLUSTER = (
    f"{PREFIX}BROKER_URL names several nodes and {PREFIX}EFFECT_QUEUES is classic: when a node is lost, the "
    "effects whose queues it has wait until it is back; set it to quorum (docs/scale.md)"
)

_SERVER = """
SELECT
    current_setting('server_version') AS version,
    current_setting('server_version_num')::int AS number,
    current_setting('server_encoding') AS encoding,
    pg_is_in_recovery() AS is_standby,
    current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int AS places,
    (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend') AS connections
"""
_SESSION = "SELECT pg_backend_pid()"
_CLOCK = "SELECT extract(epoch FROM clock_timestamp())::float8"

PACKAGES = ("invigilator", "celery", "kombu", "sqlalchemy", "psycopg2-binary", "redis", "pydantic")


def examine(settings: Settings, engine: Engine) -> Iterator[Finding]:
    """Yield what is found, one check after the other.

    Parameters:
        settings: with the addresses of the database and the broker.
        engine: of the database.
    """
    yield _versions()
    yield _configuration(settings)
    yield from _services(settings)
    yield from _database(settings, engine)
    yield from _broker(settings)


def _versions() -> Finding:
    found = [f"Python {platform.python_version()}", *(f"{name} {version(name)}" for name in PACKAGES)]
    return Finding("versions", Verdict.OK, ", ".join(found))


def _configuration(settings: Settings) -> Finding:
    try:
        check_settings(settings)
    except InvigilatorError as error:
        return Finding("configuration", Verdict.PROBLEM, str(error))
    return Finding("configuration", Verdict.OK)


def _services(settings: Settings) -> Iterator[Finding]:
    is_trial = "" if has_own_engines(settings) else ", which is good for a trial"
    services = {"LMS_URL": settings.lms_url, "SMTP_URL": settings.smtp_url.get_secret_value()}
    for name, url in services.items():
        if url == LOG:
            detail = (
                f"{PREFIX}{name} is {LOG}: calls are only written to the log{is_trial}; set it to an address"
            )
            yield Finding(name, Verdict.NOTE, detail)
        else:
            yield Finding(
                name, Verdict.OK, "`invigilator lms check` tries the calls" if name == "LMS_URL" else ""
            )


# --- the database ------------------------------------------------------------------------------------------


def _database(settings: Settings, engine: Engine) -> Iterator[Finding]:
    looks: tuple[Callable[[Connection], Iterator[Finding]], ...] = (
        _server,
        lambda connection: _pooler(connection, settings.database_pooler),
        _clock,
        _schema,
        _rights,
        _partitions,
        _audit,
        lambda connection: _shards(connection, settings.command_shards),
    )
    try:
        with engine.connect() as connection:
            limit_statements(connection, STATEMENT_TIMEOUT_S)
            for look in looks:
                yield from look(connection)
    except DBAPIError as error:
        what = f"{brief(error)}; check that it is up, and {PREFIX}DATABASE_URL"
        yield Finding("database", Verdict.PROBLEM, what)


def _server(connection: Connection) -> Iterator[Finding]:
    row = connection.exec_driver_sql(_SERVER).one()
    if row.is_standby:
        yield Finding(
            "database", Verdict.PROBLEM, "it is a standby: name the primary, or all hosts of the cluster"
        )
    elif row.encoding != "UTF8":
        yield Finding(
            "database", Verdict.PROBLEM, f"its encoding is {row.encoding}: make one with ENCODING 'UTF8'"
        )
    elif row.number < OLDEST_POSTGRESQL:
        yield Finding("database", Verdict.PROBLEM, f"PostgreSQL {row.version} is too old: 14 is needed")
    else:
        yield Finding("database", Verdict.OK, f"PostgreSQL {row.version}")
    used = f"{row.connections} of {row.places} connections are in use"
    is_full = row.connections > MANY_CONNECTIONS * row.places
    advice = f"{used}: raise max_connections, or use a pooler for the workers" if is_full else used
    yield Finding("connections", Verdict.NOTE if is_full else Verdict.OK, advice)


def _pooler(connection: Connection, setting: str) -> Iterator[Finding]:
    # A pooler tells its clients a number of its own in place of the session's.
    told = getattr(connection.connection.dbapi_connection, "info").backend_pid  # noqa: B009 - psycopg2's
    yield judge_pooler(setting, is_there=told != connection.exec_driver_sql(_SESSION).scalar_one())


def judge_pooler(setting: str, *, is_there: bool) -> Finding:
    """Judge what the settings say of a pooler.

    Parameters:
        setting: `DATABASE_POOLER`.
        is_there: whether one is between.

    Example:
        >>> judge_pooler("none", is_there=False).verdict.value
        'ok'
    """
    if is_there and setting == "none":
        what = f"there is one: set {PREFIX}DATABASE_POOLER=transaction if it works in transaction mode"
        return Finding("pooler", Verdict.NOTE, f"{what}; `consume` and `relay` need a direct connection")
    if not is_there and setting != "none":
        what = f"there is none: without {PREFIX}DATABASE_POOLER effects cost less"
        return Finding("pooler", Verdict.NOTE, what)
    return Finding("pooler", Verdict.OK, setting)


def _clock(connection: Connection) -> Iterator[Finding]:
    before = time.time()
    theirs = float(connection.exec_driver_sql(_CLOCK).scalar_one())
    skew_s = theirs - (before + time.time()) / 2
    yield judge_clock(skew_s)


def judge_clock(skew_s: float) -> Finding:
    """Judge by how many seconds the database's clock is ahead of this machine's.

    Example:
        >>> judge_clock(-90.0).verdict.value
        'problem'
    """
    said = (
        f"the database's clock is {abs(skew_s):.1f} s {'ahead of' if skew_s > 0 else 'behind'} this machine's"
    )
    if abs(skew_s) < CLOCK_NOTE_S:
        return Finding("clock", Verdict.OK, said)
    verdict = Verdict.NOTE if abs(skew_s) < CLOCK_PROBLEM_S else Verdict.PROBLEM
    return Finding("clock", verdict, f"{said}: have both follow NTP")


def _schema(connection: Connection) -> Iterator[Finding]:
    revision = schema_revision(connection) or "none"
    if wrong := compare(connection):
        yield Finding("schema", Verdict.PROBLEM, f"{wrong} (revision {revision})")
    elif revision < head():
        yield Finding("schema", Verdict.NOTE, f"revision {revision}; `invigilator migrate` brings {head()}")
    else:
        yield Finding("schema", Verdict.OK, f"revision {revision}")


def _partitions(connection: Connection) -> Iterator[Finding]:
    """What is wrong with the partitions, if a site has some."""
    if unfinished := [table for table in partitions.KEYS if partitioning.begun(connection, table)]:
        said = f"dividing {', '.join(unfinished)} was begun: run `invigilator partitions begin` again"
        yield Finding("partitions", Verdict.PROBLEM, f"{said}, or new ids are refused in a month or more")
    divided = partitions.read(connection)
    what = "run `invigilator partitions make` as the role that owns the tables"
    if lacking := divided.lacking():
        yield Finding("partitions", Verdict.NOTE, f"there is no {', '.join(lacking)}: {what}")
    if in_rest := divided.in_rest():
        said = f"there is no {', '.join(in_rest)}, so what is new goes to the rest"
        most = f"{partitions.MOST_MOVED:,}"
        yield Finding(
            "partitions", Verdict.NOTE, f"{said}: {what}, which moves it if it is {most} rows at most"
        )


def _rights(connection: Connection) -> Iterator[Finding]:
    lacking = rights.missing(connection)
    if lacking:
        grants = ", ".join(f"{privilege} on {table}" for table, privilege in lacking)
        yield Finding("rights", Verdict.PROBLEM, f"grant {grants} (docs/security.md has all grants)")
    else:
        yield Finding("rights", Verdict.OK)


def _audit(connection: Connection) -> Iterator[Finding]:
    reach = rights.reach(connection)
    if reach is None:
        return
    if reach.is_none:
        yield Finding("audit", Verdict.OK, "the application can add to it, and change nothing")
        return
    if reach.is_superuser:
        why = "the application's role is a superuser: give it a role of its own"
    elif reach.is_owner:
        why = f"the application's role owns the table {rights.AUDIT}: let another role own it"
    else:
        why = f"REVOKE {', '.join(reach.privileges)} ON {rights.AUDIT} from the application's role"
    yield Finding("audit", Verdict.NOTE, f"it is within the application's reach; {why} (docs/security.md)")


def _shards(connection: Connection, configured: int) -> Iterator[Finding]:
    stored = resharding.read(connection).number
    if stored in (0, configured):
        yield Finding("shards", Verdict.OK, f"{configured}")
    else:
        what = f"the database has {stored}, which counts: set {PREFIX}COMMAND_SHARDS to it, which is {configured}"
        yield Finding("shards", Verdict.NOTE, what)


# --- the broker --------------------------------------------------------------------------------------------


def _broker(settings: Settings) -> Iterator[Finding]:
    assert settings.broker_url is not None
    url = settings.broker_url.get_secret_value()
    try:
        depths(url, [queue_name(0)])
        server = about(url)
    except InvigilatorError as error:
        yield Finding("broker", Verdict.PROBLEM, str(error))
        return
    yield Finding("broker", Verdict.OK, server.name)
    for wrong in server.wrong:
        yield Finding("broker", Verdict.PROBLEM, wrong)
    for note in server.notes:
        yield Finding("broker", Verdict.NOTE, note)
    broker = read_broker_url(url)
    if broker.kind is Kind.AMQP and len(broker.hosts) > 1 and settings.effect_queues == "classic":
        yield Finding("broker", Verdict.NOTE, CLASSIC_IN_A_CLUSTER)
