"""Finds out whether a Redis server can be our broker."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError
from redis.sentinel import MasterNotFoundError

from .broker_url import NO_CLUSTER
from .errors import UnsuitableBrokerError


class UnsuitableServerError(UnsuitableBrokerError, RedisConnectionError):
    """`UnsuitableBrokerError` for redis-py and kombu, which take it for a server that is away."""


_UNSUITABLE = {
    "cluster": NO_CLUSTER,
    "sentinel": "is a Sentinel; for the server that it knows write sentinel:// in place of redis://",
}


@contextmanager
def explained() -> Iterator[None]:
    """Turn two errors of redis-py into clear ones.

    Raises:
        UnsuitableServerError: the server has no database of the URL's number.
        MasterNotFoundError: no Sentinel knows the server. redis-py's own text lists options of every connection.
    """
    try:
        yield
    except ResponseError as error:
        if "DB index" in str(error):
            raise UnsuitableServerError(
                "has no database of that number; see `databases` in its settings"
            ) from error
        raise
    except MasterNotFoundError:
        raise MasterNotFoundError(
            "no Sentinel that answers, and lets us in, knows a running server of that name"
        ) from None


def refuse_unsuitable(client: Any) -> None:
    """Ask a server whether it can be our broker.

    Parameters:
        client: redis-py's.

    Raises:
        UnsuitableServerError: a node of a Redis Cluster, or a Sentinel, or no such database.
        RedisError: it did not answer.
    """
    try:
        # Every user that may connect may ask this. Without arguments it changes nothing.
        with explained():
            answer = client.execute_command("HELLO")
    except ResponseError:  # a server older than Redis 6
        return
    reason = _UNSUITABLE.get(_mode(answer))
    if reason is not None:
        raise UnsuitableServerError(reason)


def _mode(answer: Any) -> str:
    pairs = answer.items() if isinstance(answer, dict) else zip(answer[::2], answer[1::2], strict=True)
    return next((_text(value) for name, value in pairs if _text(name) == "mode"), "")


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
