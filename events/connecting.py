"""Connects to a broker with kombu. All use the same kind of connection, Celery and Flower included."""

from collections.abc import Mapping
from typing import Any, ClassVar, Self

from kombu import connection
from kombu.exceptions import OperationalError
from kombu.transport import get_transport_cls

from .broker_url import BrokerUrl
from .errors import UnsuitableBrokerError
from .tls import refused_certificate


class Connection(connection.Connection):  # type: ignore[misc]
    """kombu's connection, with some transports of ours, to whichever of several hosts answers."""

    # By name, so that a process that uses RabbitMQ loads nothing for Redis. The client's package has another name.
    transports: ClassVar[Mapping[str, str]] = {
        "amqps": f"{__package__}.amqp_transport:Transport",
        "redis": f"{__package__}.redis_transport:AskingTransport",
        "rediss": f"{__package__}.redis_transport:AskingTransport",
        "sentinel": f"{__package__}.redis_transport:AskingSentinelTransport",
    }

    @classmethod
    def to(
        cls, broker: BrokerUrl, *, timeout_s: float, transport_options: Mapping[str, Any], **options: Any
    ) -> Self:
        """Make a connection. It connects when it is first used.

        Parameters:
            broker: where to connect to.
            timeout_s: seconds that each host has to connect.
            transport_options, options: see kombu.
        """
        return cls(
            broker.for_kombu,
            ssl=broker.ssl,
            connect_timeout=timeout_s,
            transport_options={**transport_options, **broker.transport_options(timeout_s)},
            **options,
        )

    def get_transport_cls(self) -> Any:
        """See kombu."""
        return get_transport_cls(self.transports.get(self.transport_cls, self.transport_cls))

    def connect(self) -> Any:
        """Connect to the first host that answers. See kombu, which would give up after the second host."""
        self.ensure_connection(max_retries=max(1, len(self.alt) - 1), reraise_as_library_errors=False)
        return self.connection

    def collect(self, socket_timeout: float | None = None) -> None:
        """Drop the connection without a word. See kombu.

        Where nothing was connected yet, kombu would only change the default time-out of all sockets for a moment.
        """
        if self._transport is not None:
            super().collect(socket_timeout)

    def info(self) -> dict[str, Any]:
        """Describe the connection, without passwords. See kombu.

        Celery's workers tell this to whoever asks. They leave out one password themselves; the Sentinels' and those
        of further hosts are left out here.
        """
        told: dict[str, Any] = super().info()
        options = dict(told["transport_options"] or {})
        options.pop("sentinel_kwargs", None)
        return told | {"alternates": [], "transport_options": options}


class OneClientConnection(Connection):
    """The same, with one client of redis-py for each channel. kombu makes one for each message."""

    transports: ClassVar[Mapping[str, str]] = {
        **Connection.transports,
        "redis": f"{__package__}.redis_transport:Transport",
        "rediss": f"{__package__}.redis_transport:Transport",
        "sentinel": f"{__package__}.redis_transport:SentinelTransport",
    }


def broker_errors(connection: Any) -> tuple[type[Exception], ...]:
    """Return the errors by which kombu says that a broker is away, or has ended a connection or a channel.

    Parameters:
        connection: kombu's. Each transport has errors of its own.
    """
    return (OperationalError, *connection.connection_errors, *connection.channel_errors)


def reason_of(error: BaseException) -> str:
    """Return why a broker is away, in a few words that quote no secret."""
    return refused_certificate(error) or _unsuitable(error) or type(error.__cause__ or error).__name__


def _unsuitable(error: BaseException | None) -> str | None:
    while error is not None:
        if isinstance(error, UnsuitableBrokerError):
            return f"it {error}"
        error = error.__cause__ or error.__context__
    return None
