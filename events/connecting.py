"""Connecting to a broker with kombu: one kind of connection for all, Celery and Flower included."""

from collections.abc import Mapping
from typing import Any, ClassVar, Self

from kombu import connection
from kombu.transport import get_transport_cls

from events.broker_url import BrokerUrl
from events.errors import UnsuitableBrokerError
from events.tls import refused_certificate


class Connection(connection.Connection):  # type: ignore[misc]
    """kombu's, with transports of ours in place of some of its own, on whichever of several hosts it is.

    Transports are named, so that who speaks to RabbitMQ loads nothing for Redis.
    """

    transports: ClassVar[Mapping[str, str]] = {
        "amqps": "events.amqp_transport:Transport",
        "redis": "events.redis_transport:AskingTransport",
        "rediss": "events.redis_transport:AskingTransport",
        "sentinel": "events.redis_transport:AskingSentinelTransport",
    }

    @classmethod
    def to(
        cls, broker: BrokerUrl, *, timeout_s: float, transport_options: Mapping[str, Any], **options: Any
    ) -> Self:
        """Make a connection, which connects when it is first used.

        Parameters:
            broker: where to.
            timeout_s: seconds for each host to connect.
            transport_options, options: as kombu has them.
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
        """See kombu, which would give up after the second host."""
        self.ensure_connection(max_retries=max(1, len(self.alt) - 1), reraise_as_library_errors=False)
        return self.connection

    def info(self) -> dict[str, Any]:
        """See kombu. Celery's workers tell it to whoever asks, and know of one password that they leave out."""
        told: dict[str, Any] = super().info()
        options = dict(told["transport_options"] or {})
        options.pop("sentinel_kwargs", None)
        return told | {"alternates": [], "transport_options": options}


class OneClientConnection(Connection):
    """The same, with one client of redis-py for each channel, where kombu makes one for each message."""

    transports: ClassVar[Mapping[str, str]] = {
        **Connection.transports,
        "redis": "events.redis_transport:Transport",
        "rediss": "events.redis_transport:Transport",
        "sentinel": "events.redis_transport:SentinelTransport",
    }


def reason_of(error: BaseException) -> str:
    """Why a broker is away, in a few words that quote no secret."""
    return refused_certificate(error) or _unsuitable(error) or type(error.__cause__ or error).__name__


def _unsuitable(error: BaseException | None) -> str | None:
    while error is not None:
        if isinstance(error, UnsuitableBrokerError):
            return f"it {error}"
        error = error.__cause__ or error.__context__
    return None
