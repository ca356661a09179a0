"""Celery's connection and its pool, as subclasses of our connection. `AMQP.Connection` names the connection."""

from typing import Any

from kombu import connection

from events.connecting import Connection


class PooledConnection(Connection, connection.PooledConnection):  # type: ignore[misc]
    """See kombu."""


class ConnectionPool(connection.ConnectionPool):  # type: ignore[misc]
    """See kombu."""

    def new(self) -> PooledConnection:
        """Make a connection. kombu 5.7 makes one of its own class here, in the same way."""
        return PooledConnection(self, **dict(self.connection._info(resolve=False)))


class PoolingConnection(Connection):
    """The connection that Celery uses."""

    def Pool(self, limit: int | None = None, **options: Any) -> ConnectionPool:  # noqa: N802 - kombu's name
        """See kombu."""
        return ConnectionPool(self, limit, **options)
