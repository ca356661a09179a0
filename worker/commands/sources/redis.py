"""Takes commands from Redis or Valkey: reads them without removing them, and pops them after the commit.

kombu's own consumer pops a message before it records that it has it, and loses it when it is killed in between.
Here a message stays at the tail of its list until its batch is committed. The head of the list is the newest.
"""

import base64
import io
import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Self

from redis import Redis, RedisError
from redis.backoff import NoBackoff
from redis.exceptions import NoPermissionError, OutOfMemoryError, ResponseError, WatchError
from redis.retry import Retry
from redis.sentinel import Sentinel, SentinelConnectionPool

from events.broker_url import BrokerUrl
from events.redis_server import UnsuitableServerError, explained, refuse_unsuitable
from events.sharding import NEXT_SHARDS_KEY, SHARDS_KEY, Announcement, read_number
from events.signing import SIGNATURE_HEADER
from worker.commands.sources.base import MAX_TAKE_BYTES, BrokerAwayError, Message
from worker.errors import ConfigurationError
from worker.logs import get_logger

logger = get_logger(__name__)

PRIORITY_SUFFIXES = ("", "\x06\x163", "\x06\x166", "\x06\x169")
"""kombu keeps a list for each priority. The first is the highest, and the one of messages without a priority."""

MAX_ENVELOPE_BYTES = MAX_TAKE_BYTES
"""A larger envelope is not opened: no command in it can be small enough."""

SIGNED_MEMBERS = {"payload", "signature"}
"""The members of a signed command by `LPUSH`, where there are no headers: a base64 body and its signature."""

SOCKET_TIMEOUT_S = 15.0
MAX_WAIT_S = 1.0  # a message in the list of another priority is seen after this time

# Reads the tails of the lists within two limits, of messages and of bytes. LRANGE knows only the first limit.
# Returns the sizes of the messages of each list, and all messages as one text: redis-py reads few values faster.
READ_TAILS = """
local messages, bytes = tonumber(ARGV[1]), tonumber(ARGV[2])
local answer, tails = {}, {}
for number, list in ipairs(KEYS) do
    local sizes = {}
    while #tails < messages do
        local message = redis.call('LINDEX', list, -1 - #sizes)
        if not message then break end
        bytes = bytes - #message
        if bytes < 0 and #tails > 0 then messages = 0 break end
        sizes[#sizes + 1], tails[#tails + 1] = #message, message
    end
    answer[number] = table.concat(sizes, ' ')
end
answer[#KEYS + 1] = table.concat(tails)
return answer
"""

# Pops messages as long as the tail is, byte for byte, what was committed. A late owner pops nothing.
# One LTRIM: the append-only file and replicas get each call that changes something.
POP_COMMITTED = """
local committed = 0
for number, message in ipairs(ARGV) do
    if redis.call('LINDEX', KEYS[1], -number) ~= message then break end
    committed = number
end
redis.call('LTRIM', KEYS[1], 0, -1 - committed)
"""

VERSION_KEY = f"{SHARDS_KEY}.version"
"""The key of the version of what is announced. An owner that stood still may not announce an older one."""
VERSION_FOR_S = 60
"""Seconds for which a version keeps lower ones out. A database that was restored from a backup has a lower one."""

# Into the list of the lowest priority in which a message waits, so that it comes after all that wait.
PUT_LAST = """
local last = 1
for number, list in ipairs(KEYS) do
    if redis.call('EXISTS', list) == 1 then last = number end
end
redis.call('LPUSH', KEYS[last], ARGV[1])
"""


@dataclass(frozen=True, slots=True)
class Place:
    """The place of a message: its list, and its bytes there."""

    list_name: str
    raw: bytes


@dataclass(frozen=True, slots=True)
class RedisSource:
    """The lists of one shard, over one connection, which one thread uses."""

    client: Redis
    queue: str

    @classmethod
    def open(cls, broker: BrokerUrl, queue: str, _limit: int) -> Self:
        """Connect.

        Raises:
            BrokerAwayError: no connection.
            ConfigurationError: the server cannot be our broker.
        """
        client = make_client(broker, SOCKET_TIMEOUT_S)
        with _broker():
            refuse_unsuitable(client)
            # This changes nothing, but a read-only server (a replica) refuses it. A batch from there would be
            # committed and never acknowledged.
            client.ltrim(queue, 0, -1)
        return cls(client, queue)

    def take(self, limit: int, wait_s: float) -> Sequence[Message]:
        """See `Source`."""
        with _broker():
            waiting = self._peek(limit)
            if waiting:
                return waiting
            first = self._wait(min(wait_s, MAX_WAIT_S))
        # It is taken alone, so that nobody who is alone waits for another answer of the server.
        return [] if first is None else [open_envelope(Place(self.queue, first))]

    def told(self) -> Announcement | None:
        """See `Source`."""
        with _broker():
            try:
                shards = read_number(self.client.get(SHARDS_KEY))
            except ResponseError:  # we may not read it, or it is no string
                return None
        return None if shards is None else Announcement(shards)

    def announce(self, announcement: Announcement, _told: Announcement | None) -> bool:
        """See `Source`. It is written again, whatever is told, because its version expires."""
        with _broker():
            try:
                return self._announce(announcement)
            except (OutOfMemoryError, NoPermissionError) as error:
                # Commands are consumed all the same. Publishers use the number that they were given.
                logger.warning(
                    "the number of shards was not announced", key=SHARDS_KEY, reason=type(error).__name__
                )
                return False

    def put_barrier(self, body: bytes) -> bool:
        """See `Source`. A server whose memory is full takes it when commands have been consumed."""
        names = [self.queue + suffix for suffix in PRIORITY_SUFFIXES]
        with _broker():
            try:
                self.client.eval(PUT_LAST, len(names), *names, body)
            except OutOfMemoryError as error:
                logger.warning("a barrier was not put", queue=self.queue, reason=type(error).__name__)
                return False
            return True

    def held(self) -> int:
        """See `Source`."""
        return 0

    def is_empty(self) -> bool:
        """See `Source`. Redis holds nothing back."""
        return True

    def put_back(self, messages: Sequence[Message]) -> None:
        """See `Source`. Nothing was removed yet."""

    def ack(self, batch: Sequence[Message]) -> None:
        """See `Source`."""
        with _broker():
            for list_name, messages in groupby(batch, key=lambda message: message.token.list_name):
                pop_committed(self.client, list_name, [message.token.raw for message in messages])

    def close(self) -> None:
        """See `Source`."""
        self.client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _announce(self, announcement: Announcement) -> bool:
        client: Any = self.client  # whose pipelines have types in part
        with client.pipeline() as pipeline, suppress(WatchError):
            pipeline.watch(VERSION_KEY)
            told = pipeline.get(VERSION_KEY)
            if told is not None and int(told) > announcement.version:
                return False
            pipeline.multi()
            if announcement.next is None:
                pipeline.delete(NEXT_SHARDS_KEY)
            else:
                pipeline.set(NEXT_SHARDS_KEY, announcement.next)
            pipeline.set(SHARDS_KEY, announcement.shards)
            pipeline.set(VERSION_KEY, announcement.version, ex=VERSION_FOR_S)
            pipeline.execute()
            return True
        return False  # somebody else has announced at the same moment

    def _wait(self, seconds: Any) -> bytes | None:  # Redis takes fractions, redis-py's annotation does not
        try:
            # Moves the oldest message to where it is. This blocks until there is one, and changes nothing.
            oldest: Any = self.client.blmove(self.queue, self.queue, seconds, "RIGHT", "RIGHT")
        except OutOfMemoryError:
            # A server whose memory is full refuses even this. It also refuses publishers, so nothing is missed.
            time.sleep(seconds)
            return None
        return None if oldest is None else bytes(oldest)

    def _peek(self, limit: int) -> list[Message]:
        names = [self.queue + suffix for suffix in PRIORITY_SUFFIXES]
        answer: Any = self.client.eval(READ_TAILS, len(names), *names, limit, MAX_TAKE_BYTES)
        *sizes, joined = answer
        tails = io.BytesIO(joined)
        return [
            open_envelope(Place(name, tails.read(int(size))))
            for name, of_list in zip(names, sizes, strict=True)
            for size in of_list.split()
        ]


def pop_committed(client: Redis, list_name: str, committed: Sequence[bytes]) -> None:
    """Remove the committed messages from the tail of a list, the oldest first, up to one that is not there."""
    client.eval(POP_COMMITTED, 1, list_name, *committed)


class _Pool(SentinelConnectionPool):
    """Closes the connections to the Sentinels, too, when its client is closed."""

    def disconnect(self, inuse_connections: bool = True) -> None:
        """See redis-py."""
        super().disconnect(inuse_connections)
        for sentinel in self.sentinel_manager.sentinels:
            sentinel.close()


def make_client(broker: BrokerUrl, timeout_s: float) -> Redis:
    """Return a client that gives up on a server after `timeout_s` seconds and does not try again by itself.

    With Sentinels, it asks them for the server each time it connects.
    """
    arguments: dict[str, Any] = {
        "db": broker.database,
        "username": broker.user,
        "password": broker.password,
        "socket_timeout": timeout_s,
        "socket_connect_timeout": timeout_s,
        "socket_keepalive": True,
        "retry": Retry(NoBackoff(), 0),
        "ssl": broker.tls is not None,
        **broker.ssl,
    }
    if broker.sentinels is None:
        [(host, port)] = broker.hosts
        return Redis(host=host, port=port, **arguments)
    make: Any = Sentinel  # which has no types
    sentinel = make(broker.hosts, sentinel_kwargs=broker.sentinel_arguments(timeout_s))
    client: Redis = sentinel.master_for(
        broker.sentinels.master_name, connection_pool_class=_Pool, **arguments
    )
    return client


def open_envelope(place: Place) -> Message:
    """Return the message in kombu's envelope, or a signed one. Without an envelope, the bytes are the message."""
    raw = place.raw
    if len(raw) > MAX_ENVELOPE_BYTES:
        return Message(raw, place)
    try:
        envelope = json.loads(raw)
        if not isinstance(envelope, dict) or "specversion" in envelope:
            return Message(raw, place)
        return _opened(envelope, place)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return Message(raw, place)


def _opened(envelope: dict[str, Any], place: Place) -> Message:
    if envelope.keys() == SIGNED_MEMBERS:
        body = base64.b64decode(envelope["payload"], validate=True)
        return Message(body, place, headers={SIGNATURE_HEADER: envelope["signature"]})
    body = envelope["body"]
    if envelope["properties"].get("body_encoding") == "base64":
        body = base64.b64decode(body, validate=True)
    else:
        body = body.encode("utf-8")
    headers = envelope.get("headers") or {}
    return Message(body, place, envelope.get("content-type"), dict(headers))


@contextmanager
def _broker() -> Iterator[None]:
    try:
        with explained():
            yield
    except UnsuitableServerError as error:
        raise ConfigurationError(f"the broker {error}") from error
    except (RedisError, OSError) as error:
        raise BrokerAwayError(f"the broker is away: {type(error).__name__}: {error}") from error
