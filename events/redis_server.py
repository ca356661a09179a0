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


def refuse_unsuitable(client: Any) -> int:
    """Ask a server whether it can be our broker.

    Parameters:
        client: redis-py's.

    Returns:
        the number before the first point of its version; 0 for a server older than Redis 6.

    Raises:
        UnsuitableServerError: a node of a Redis Cluster, or a Sentinel, or no such database.
        RedisError: it did not answer.
    """
    try:
        # Every user that may connect may ask this. Without arguments it changes nothing.
        with explained():
            answer = client.execute_command("HELLO")
    except ResponseError:  # a server older than Redis 6
        return 0
    pairs = answer.items() if isinstance(answer, dict) else zip(answer[::2], answer[1::2], strict=True)
    said = {_text(name): value for name, value in pairs}
    reason = _UNSUITABLE.get(_text(said.get("mode", "")))
    if reason is not None:
        raise UnsuitableServerError(reason)
    major, _, _ = _text(said.get("version", "")).partition(".")
    return int(major) if major.isdigit() else 0


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
