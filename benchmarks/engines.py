"""The engines that all contestants share: one PostgreSQL and one server of each broker for the whole run."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import psycopg2
from kombu import Connection as BrokerConnection
from kombu import Queue
from redis import Redis
from sqlalchemy.engine import make_url

from events.sharding import SHARDS_KEY, queue_name
from invigilator.local import postgres, valkey
from invigilator.local.guard import Guard
from tests.rabbit import PROGRAM as RABBITMQ
from tests.rabbit import running_rabbitmq
from worker.commands.sources.rabbitmq import QUEUE_ARGUMENTS
from worker.kinds import QUEUES

VALKEY, RABBIT = "valkey", "rabbitmq"
HOW_TO_INSTALL = "RabbitMQ is not installed (apt-get install rabbitmq-server): its rows are left out"

_SETTINGS = {
    "track_commit_timestamp": "on",  # latencies need the time of each commit
    "track_wal_io_timing": "on",  # a commit's timestamp is taken before its flush, so the flush time is added
}


@dataclass(frozen=True, slots=True)
class Broker:
    """A running broker. `pids` are the roots of its process trees."""

    name: str
    url: str = field(repr=False)
    pids: tuple[int, ...]

    def reset(self, shards: int = 1) -> None:
        """Delete everything that our system left in the broker. On RabbitMQ, declare the command queues anew."""
        if self.name == VALKEY:
            with Redis.from_url(self.url) as client:
                client.flushall()
            return
        with BrokerConnection(self.url) as connection, connection.channel() as channel:
            for name in [*map(queue_name, range(8)), *set(QUEUES.values()), SHARDS_KEY]:
                channel.queue_delete(name)
            for shard in range(shards):
                queue: Any = Queue(queue_name(shard), channel=channel, queue_arguments=QUEUE_ARGUMENTS)
                queue.queue_declare()


@dataclass
class Database:
    """A running PostgreSQL with its default durability. It records the time of each commit."""

    url: str = field(repr=False)
    pid: int
    _templates: dict[str, str] = field(default_factory=dict)
    _copies: int = 0

    @contextmanager
    def fresh(self, template: str, prepare: Callable[[str], None]) -> Iterator[str]:
        """Yield the URL of a new database, a copy of a template, and drop it afterwards.

        Parameters:
            template: the name of the template.
            prepare: fills the database with the given URL. It is called once, when the template is created.
        """
        if template not in self._templates:
            self._templates[template] = f"template_{template}"
            self.execute(f"CREATE DATABASE template_{template}")
            prepare(self.named(f"template_{template}"))
        self._copies += 1
        name = f"bench_{self._copies}"
        self.execute(f"CREATE DATABASE {name} TEMPLATE template_{template}")
        try:
            yield self.named(name)
        finally:
            self.execute(f"DROP DATABASE {name} WITH (FORCE)")

    def named(self, name: str) -> str:
        """Return the URL of another database of this server."""
        return make_url(self.url).set(database=name).render_as_string(hide_password=False)

    def exists(self, name: str) -> bool:
        """Return whether this server has a database of that name."""
        connection = connect(self.url)
        try:
            with connection.cursor() as cursor:
                cursor.execute("SELECT FROM pg_database WHERE datname = %s", (name,))
                return bool(cursor.rowcount)
        finally:
            connection.close()

    def execute(self, statement: str) -> None:
        """Run a statement outside of any transaction."""
        connection = connect(self.url)
        try:
            with connection.cursor() as cursor:
                cursor.execute(statement)
        finally:
            connection.close()


@dataclass(frozen=True, slots=True)
class Engines:
    """The running engines."""

    database: Database
    brokers: dict[str, Broker]


def connect(url: str) -> Any:
    """Open a psycopg2 connection that commits every statement."""
    connection = psycopg2.connect(libpq_url(url))
    connection.autocommit = True
    return connection


def libpq_url(url: str) -> str:
    """Return the URL in libpq's form, without SQLAlchemy's driver."""
    return make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)


@contextmanager
def running(folder: Path, say: Callable[[str], None]) -> Iterator[Engines]:
    """Run PostgreSQL, Valkey and, if it is installed, RabbitMQ. They stop even if this process is killed."""
    with ExitStack() as stack:
        guard = stack.enter_context(Guard())
        database = _postgres(folder / "postgres", guard, stack)
        redis = valkey.start(folder / "valkey", watch=guard.watch_engine)
        stack.callback(redis.stop)
        brokers = {VALKEY: Broker(VALKEY, redis.url, (redis.process.pid,))}
        if RABBITMQ.exists():
            brokers[RABBIT] = _rabbitmq(stack)
        else:
            say(HOW_TO_INSTALL)
        yield Engines(database, brokers)


def _postgres(folder: Path, guard: Guard, stack: ExitStack) -> Database:
    server = postgres.start(folder, watch=guard.watch_engine)
    connection = connect(server.url)
    with connection.cursor() as cursor:
        for name, value in _SETTINGS.items():
            cursor.execute(f"ALTER SYSTEM SET {name} = {value}")
    connection.close()
    server.stop()
    server = postgres.start(folder, watch=guard.watch_engine)
    stack.callback(server.stop)
    return Database(server.url, server.process.pid)


def _rabbitmq(stack: ExitStack) -> Broker:
    ourselves = psutil.Process()
    before = {child.pid for child in ourselves.children()}
    url = stack.enter_context(running_rabbitmq())
    started = [child for child in ourselves.children() if child.pid not in before]
    return Broker(
        RABBIT, url, tuple(child.pid for child in started if "guard" not in " ".join(child.cmdline()))
    )
