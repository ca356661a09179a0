"""Publishes events to a stream of Redis or Valkey."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self

from redis import Redis, RedisError, WatchError

from events.broker_url import BrokerUrl
from events.redis_server import explained, refuse_unsuitable
from worker.commands.sources.base import BrokerAwayError
from worker.commands.sources.redis import SOCKET_TIMEOUT_S, make_client
from worker.feeds.base import OvertakenError, Publication
from worker.subscribers import EPOCH

EVENT_FIELD = "event"
"""The one field of an entry of a feed."""


def epoch_key(stream: str) -> str:
    """Return the key that holds the epoch of the last publisher of a stream."""
    return f"{stream}{EPOCH}"


@dataclass(frozen=True, slots=True)
class RedisTarget:
    """A stream. The key beside it holds the epoch of who publishes to it.

    The key is read and written in the transaction that adds to the stream. So a publisher that wakes up after
    another one has begun adds nothing.

    Parameters:
        client: whose server has the stream.
        stream: its name.
        max_len: how many entries it keeps, about.
        body_field: the field of an entry that holds the body.
    """

    client: Redis
    stream: str
    max_len: int
    body_field: str

    @classmethod
    def open(cls, broker: BrokerUrl, stream: str, max_len: int, body_field: str = EVENT_FIELD) -> Self:
        """Connect. The other parameters are those of the class.

        Raises:
            BrokerAwayError: no connection, or the server cannot be our broker.
        """
        client = make_client(broker, SOCKET_TIMEOUT_S)
        with _broker():
            refuse_unsuitable(client)
        return cls(client, stream, max_len, body_field)

    def publish(self, publications: Sequence[Publication], epoch: int) -> None:
        """See `Target`."""
        key = epoch_key(self.stream)
        begin: Any = self.client.pipeline  # parts of it have no types
        with _broker(), begin(transaction=True) as pipeline:
            pipeline.watch(key)
            if _epoch(key, pipeline.get(key)) > epoch:
                raise OvertakenError
            pipeline.multi()
            pipeline.set(key, epoch)
            for one in publications:
                entry = {**one.attributes, self.body_field: one.body}
                pipeline.xadd(self.stream, entry, maxlen=self.max_len, approximate=True)
            try:
                pipeline.execute()
            except WatchError:
                raise OvertakenError from None

    def close(self) -> None:
        """See `Target`."""
        self.client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _epoch(key: str, known: bytes | None) -> int:
    try:
        return 0 if known is None else int(known)
    except ValueError:
        raise BrokerAwayError(
            f"the key {key} holds no number: somebody else has written it; delete it"
        ) from None


@contextmanager
def _broker() -> Iterator[None]:
    try:
        with explained():
            yield
    except (RedisError, OSError) as error:
        # The client puts the command in front, with the event.
        what = str(error).rpartition("caused error: ")[2]
        raise BrokerAwayError(f"the broker takes no events: {type(error).__name__}: {what}") from None
