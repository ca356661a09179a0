"""How we connect to RabbitMQ, and what its refusals mean: for commands, for feeds and for the queues of effects."""

from typing import Any

from events.broker_url import BrokerUrl
from events.connecting import Connection

CONNECT_TIMEOUT_S = 10
ANSWER_TIMEOUT_S = 10
PERSISTENT = 2
"""The delivery mode of a message that survives a restart."""
_PRECONDITION_FAILED = 406


def connection_to(broker: BrokerUrl, **options: Any) -> Connection:
    """Make a connection that waits for no answer for ever, not even while it is closed.

    Parameters:
        options: see kombu.
    """
    return Connection.to(
        broker,
        timeout_s=CONNECT_TIMEOUT_S,
        transport_options={"read_timeout": ANSWER_TIMEOUT_S, "write_timeout": ANSWER_TIMEOUT_S},
        **options,
    )


def is_declared_otherwise(error: BaseException) -> bool:
    """Return whether RabbitMQ refused a declaration, because the queue or exchange exists with other properties."""
    return getattr(error, "reply_code", None) == _PRECONDITION_FAILED
