"""What kind of Redis server has answered."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError
from redis.sentinel import MasterNotFoundError

from events.broker_url import NO_CLUSTER
from events.errors import UnsuitableBrokerError


class UnsuitableServerError(UnsuitableBrokerError, RedisConnectionError):
    """The same for redis-py and kombu, which take it for a server that is away."""


_UNSUITABLE = {
    "cluster": NO_CLUSTER,
    "sentinel": "is a Sentinel; for the server that it knows write sentinel:// in place of redis://",
}


@contextmanager
def explained() -> Iterator[None]:
    """Say in a few words what is wrong where redis-py says too much, or not enough.

    Raises:
        UnsuitableServerError: the server has no database of the URL's number.
    """
    try:
        yield
    except ResponseError as error:
        if "DB index" in str(error):
            raise UnsuitableServerError(
                "has no database of that number; see `databases` in its settings"
            ) from error
        raise
    except MasterNotFoundError:  # its text lists every option of every connection
        raise MasterNotFoundError(
            "no Sentinel that answers, and lets us in, knows a running server of that name"
        ) from None


def refuse_unsuitable(client: Any) -> None:
    """Ask a server what it is.

    Parameters:
        client: one of redis-py.

    Raises:
        UnsuitableServerError: a node of a Redis Cluster, or a Sentinel, or no such database.
        RedisError: it did not answer.
    """
    try:
        # Whoever may connect may ask this, whatever its rights. Without arguments it changes nothing.
        with explained():
            answer = client.execute_command("HELLO")
    except ResponseError:  # older than Redis 6
        return
    reason = _UNSUITABLE.get(_mode(answer))
    if reason is not None:
        raise UnsuitableServerError(reason)


def _mode(answer: Any) -> str:
    pairs = answer.items() if isinstance(answer, dict) else zip(answer[::2], answer[1::2], strict=True)
    return next((_text(value) for name, value in pairs if _text(name) == "mode"), "")


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
