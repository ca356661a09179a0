"""Publishes events to a stream of Redis or Valkey."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import Any, Self

from redis import Redis, RedisError

from events.broker_url import BrokerUrl
from events.redis_server import explained, refuse_unsuitable
from worker.commands.sources.base import BrokerAwayError
from worker.commands.sources.redis import SOCKET_TIMEOUT_S, make_client
from worker.feeds.base import OvertakenError, Publication
from worker.subscribers import EPOCH

EVENT_FIELD = "event"
"""The one field of an entry of a feed."""

# Adds entries, unless a later epoch is known; then it returns what is known. Each entry is the number of the
# arguments that it has, and its fields with their values. For a transaction redis-py takes five times as long.
_ADD = """
local known = redis.call('GET', KEYS[1])
local epoch = tonumber(known or 0)
if not epoch or epoch > tonumber(ARGV[1]) then return known end
redis.call('SET', KEYS[1], ARGV[1])
local at = 3
while at <= #ARGV do
    local last = at + tonumber(ARGV[at])
    redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[2], '*', unpack(ARGV, at + 1, last))
    at = last + 1
end
"""


def epoch_key(stream: str) -> str:
    """Return the key that holds the epoch of the last publisher of a stream."""
    return f"{stream}{EPOCH}"


@dataclass(frozen=True, slots=True)
class RedisTarget:
    """A stream. The key beside it holds the epoch of who publishes to it.

    The key is read and written in the script that adds to the stream. So a publisher that wakes up after
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
        entries = chain.from_iterable(map(self._entry, publications))
        key = epoch_key(self.stream)
        with _broker():
            known: Any = self.client.eval(_ADD, 2, key, self.stream, epoch, self.max_len, *entries)
        if known is not None:
            raise _refused(key, known)

    def close(self) -> None:
        """See `Target`."""
        self.client.close()

    def _entry(self, one: Publication) -> Sequence[Any]:
        pairs = [*one.attributes.items(), (self.body_field, one.body)]
        return [2 * len(pairs), *chain.from_iterable(pairs)]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _refused(key: str, known: bytes) -> Exception:
    if known.isdigit():
        return OvertakenError()
    return BrokerAwayError(f"the key {key} holds no number: somebody else has written it; delete it")


@contextmanager
def _broker() -> Iterator[None]:
    try:
        with explained():
            yield
    except (RedisError, OSError) as error:
        raise BrokerAwayError(f"the broker takes no events: {type(error).__name__}: {error}") from None
