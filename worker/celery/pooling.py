"""Celery's pool of connections, with connections of ours in it."""

from typing import Any

from kombu import connection

from events.connecting import Connection


class PooledConnection(Connection, connection.PooledConnection):  # type: ignore[misc]
    """See kombu."""


class ConnectionPool(connection.ConnectionPool):  # type: ignore[misc]
    """See kombu."""

    def new(self) -> PooledConnection:
        """See kombu 5.7, which makes its own kind of connection here, in the same way."""
        return PooledConnection(self, **dict(self.connection._info(resolve=False)))


class PoolingConnection(Connection):
    """What Celery connects with."""

    def Pool(self, limit: int | None = None, **options: Any) -> ConnectionPool:  # noqa: N802 - kombu's name
        """See kombu."""
        return ConnectionPool(self, limit, **options)
