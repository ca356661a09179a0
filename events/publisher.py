"""The publisher that an LMS imports. It puts commands into the queues that Invigilator reads."""

from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from itertools import count
from types import TracebackType
from typing import Any, Self

from .broker_url import BrokerUrl, Kind, for_each_kind, read_broker_url
from .commands import Command
from .connecting import Connection, OneClientConnection
from .envelope import AWAITED_HEADER, CONTENT_TYPE, parse, render
from .executor import SerialExecutor
from .methods import Answer, CommandMethods, NewCommand
from .sender import Parcel, Sender, not_taken
from .shard_count import Ask, ShardCount, ask_rabbitmq, ask_redis
from .sharding import shards_of
from .signing import MIN_KEY_CHARS, SIGNATURE_HEADER, sign

_IN_MEMORY = "memory://"
"""kombu's broker inside the process, for tests and examples."""

# With a heartbeat the broker forgets a publisher that has gone away without a word. Nothing serves the heartbeat
# between two publishes, so the broker also closes the connection of an idle publisher. The next publish opens
# another.
_HEARTBEAT_S = 60

RETRIES = {"max_retries": 3, "interval_start": 0, "interval_step": 0.5, "interval_max": 2}
"""How often a broken connection is tried again, and the seconds between two tries, as kombu's options."""


@dataclass(frozen=True, slots=True)
class _Manner:
    """How one kind of broker is published to.

    Parameters:
        mandatory: whether the broker says when a queue does not exist.
        ask_shards: asks the broker how many shards there are; None where it does not know.
        transport_options: returns kombu's, from the number of seconds that a call may take.
    """

    mandatory: bool
    ask_shards: Ask | None
    transport_options: Callable[[float], dict[str, Any]]


# The retries are transport options, too: without them, kombu tries to make its first connection for ever.


def _redis_options(timeout_s: float) -> dict[str, Any]:
    return {**RETRIES, "socket_timeout": timeout_s, "socket_connect_timeout": timeout_s}


def _amqp_options(timeout_s: float) -> dict[str, Any]:
    # The time-outs also bound closing, which waits for the broker's answer.
    return {**RETRIES, "confirm_publish": True, "read_timeout": timeout_s, "write_timeout": timeout_s}


_REDIS = _Manner(mandatory=False, ask_shards=ask_redis, transport_options=_redis_options)
_RABBITMQ = _Manner(mandatory=True, ask_shards=ask_rabbitmq, transport_options=_amqp_options)
_MANNERS = for_each_kind({Kind.REDIS: _REDIS, Kind.SENTINEL: _REDIS, Kind.AMQP: _RABBITMQ})
_MEMORY = _Manner(mandatory=False, ask_shards=None, transport_options=lambda _: {**RETRIES})


class _Base(CommandMethods[Answer]):
    """What both publishers have in common. They differ in how they wait."""

    def __init__(
        self,
        broker_url: str,
        *,
        source: str,
        shards: int | None = None,
        timeout_s: float = 10,
        signing_key: str | None = None,
        reuse_redis_client: bool = True,
        assumed_shards: int = 1,
    ) -> None:
        for name, number in (("shards", shards), ("assumed_shards", assumed_shards)):
            if number is not None and not (type(number) is int and number >= 1):
                raise ValueError(f"{name} must be at least 1, a whole number")
        if signing_key is not None and len(signing_key) < MIN_KEY_CHARS:
            raise ValueError(f"signing_key must have at least {MIN_KEY_CHARS} characters")
        if not (isinstance(timeout_s, int | float) and timeout_s > 0):
            raise ValueError("timeout_s must be above 0, a number of seconds")
        self.source = source
        self._signing_key = signing_key
        self._timeout_s = timeout_s
        broker = _read(broker_url)
        manner = _MEMORY if broker is None else _MANNERS[broker.kind]
        shard_count = self._shard_count = ShardCount(shards, assumed_shards)
        given_up = count()

        def make_sender() -> Sender:
            connection = _connection(broker, manner, timeout_s, reuse_redis_client)
            for _ in range(next(given_up)):
                connection.maybe_switch_next()  # of several hosts, not the one that was given up last
            return Sender(
                connection,
                shards=shard_count,
                mandatory=manner.mandatory,
                ask_shards=manner.ask_shards,
                retries=RETRIES,
                timeout_s=timeout_s,
            )

        self._executor = SerialExecutor(make_sender, Sender.disconnect)

    @property
    def shards(self) -> int:
        """How many shards it publishes to: as it was told, or as the broker said last."""
        return self._shard_count.number

    def _parcel(self, command: Command, signing_key: str | None, awaited: bool) -> Parcel:
        body = render(command)
        parsed = parse(body)  # a command that Invigilator would not understand is not sent
        headers = _signature(body, signing_key or self._signing_key)
        if awaited:
            headers[AWAITED_HEADER] = "1"
        return Parcel(body, CONTENT_TYPE, headers, parsed.id, partial(shards_of, parsed.data))

    def _raw(self, body: bytes, shard: int, content_type: str, headers: Mapping[str, str] | None) -> Parcel:
        headers = {**_signature(body, self._signing_key), **(headers or {})}
        return Parcel(body, content_type, headers, None, partial(_only, shard))


class Publisher(_Base[str]):
    """Publishes commands to Invigilator. Threads may share one: it sends their commands one after the other.

    It connects at the first publish, in a thread of its own, and stays connected. A forked process makes another
    connection.

    After a `PublishError` nobody knows whether the command has arrived. Publish it again with the same id:
    Invigilator takes the two for one command.

    Parameters:
        broker_url: `redis://`, `rediss://`, `sentinel://`, `sentinels://`, `amqp://` or `amqps://`, as in
            `INVIGILATOR_BROKER_URL`, or `memory://` for a broker inside the process, for tests. With an `s` the
            connection is encrypted and the broker's certificate checked. Sentinels, and nodes of RabbitMQ, may be
            several; see `events.broker_url.read_broker_url`.
        source: who publishes, 1 to 255 characters, for example `/lms/acme`. A source and an id name one command.
        shards: how many shards Invigilator has. Leave it out: the broker says how many there are, because `consume`
            has written it there. The broker is asked at the first publish and every 10 seconds, so the number may
            change. Another number than the broker's is refused at the publish (`ShardsMismatchError`). Where the
            broker was not told, the given number counts, or `assumed_shards`, with one warning in the log. RabbitMQ
            may have been told and be silent for a moment; then a publisher that knows no number raises
            `PublishError`.
        timeout_s: seconds within which each call returns or raises, whatever the broker does. They begin with the
            call, and include its turn among other threads, connecting, trying again and the broker's confirmation.
        signing_key: a key of `source`, as in the file of `INVIGILATOR_COMMAND_KEYS_FILE`, at least 32
            characters; every message is signed with it. None: nothing is signed.
        reuse_redis_client: on Redis, whether to use one client for all messages. kombu makes one for each, which
            takes half of the time of a publish. This overrides a private method of kombu
            (`events.redis_transport`): False leaves kombu as it is, for a release that changes that method.
        assumed_shards: the number that counts until the broker is told one. Unlike `shards` it is never compared.

    Raises:
        ValueError: the URL, the number of shards, the time-out or the key cannot be right.

    Example:
        >>> with Publisher("memory://", source="/lms/acme") as publisher:
        ...     publisher.update_status(
        ...         exam_id="7", user_id="42", attempt_code="a1", to_status="submitted", command_id="5f0c"
        ...     )
        '5f0c'
    """

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection, if there is one. A later publish opens it again."""
        with suppress(TimeoutError):
            self._executor.run(_close, self._timeout_s)
        self._executor.rest()

    def publish(self, command: Command, *, signing_key: str | None = None, awaited: bool = False) -> None:
        """Publish a command to its learner's shard, or to every shard when it belongs to no learner.

        Parameters:
            command: its source may be another than this publisher's.
            signing_key: a key of that source, instead of this publisher's.
            awaited: whether somebody waits for the outcome, who is then told of the commit.

        Raises:
            InvalidMessageError: the command is not valid; nothing was sent.
            PublishError: the broker did not take it.
        """
        self._send(self._parcel(command, signing_key, awaited))

    def publish_raw(
        self,
        body: bytes,
        shard: int,
        content_type: str = CONTENT_TYPE,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Publish bytes as they are, valid or not. This is for tests, and for messages from quarantine.

        Parameters:
            body: any bytes.
            shard: which queue, counted from 0.
            content_type: as the broker will name it.
            headers: the message's headers. A signature among them replaces this publisher's.

        Raises:
            ValueError: there is no such shard.
            PublishError: the broker did not take it.
        """
        self._send(self._raw(body, shard, content_type, headers))

    def _publish_new(self, new: NewCommand) -> str:
        command = new.made_by(self.source)
        self.publish(command)
        return command.id

    def _send(self, parcel: Parcel) -> None:
        with _in_time(parcel):
            self._executor.run(partial(_deliver, parcel), self._timeout_s)


class AsyncPublisher(_Base[Coroutine[Any, Any, str]]):
    """`Publisher` for asyncio. It has the same parameters and the same methods, each a coroutine.

    No method blocks the event loop. Tasks may share a publisher: its thread sends their commands one after the
    other, in the order of the calls. A call that is cancelled before its turn sends nothing. After a later
    cancellation nobody knows whether the command has arrived, as after a `PublishError`.

    Example:
        >>> import asyncio
        >>> async def submit() -> str:
        ...     async with AsyncPublisher("memory://", source="/lms/acme") as publisher:
        ...         return await publisher.update_status(
        ...             exam_id="7", user_id="42", attempt_code="a1", to_status="submitted", command_id="5f0c"
        ...         )
        >>> asyncio.run(submit())
        '5f0c'
    """

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """As `Publisher.close`."""
        with suppress(TimeoutError):
            await self._executor.run_async(_close, self._timeout_s)
        self._executor.rest()

    async def publish(
        self, command: Command, *, signing_key: str | None = None, awaited: bool = False
    ) -> None:
        """As `Publisher.publish`."""
        await self._send(self._parcel(command, signing_key, awaited))

    async def publish_raw(
        self,
        body: bytes,
        shard: int,
        content_type: str = CONTENT_TYPE,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """As `Publisher.publish_raw`."""
        await self._send(self._raw(body, shard, content_type, headers))

    async def _publish_new(self, new: NewCommand) -> str:
        command = new.made_by(self.source)
        await self.publish(command)
        return command.id

    async def _send(self, parcel: Parcel) -> None:
        with _in_time(parcel):
            await self._executor.run_async(partial(_deliver, parcel), self._timeout_s)


def _deliver(parcel: Parcel, sender: Sender, deadline: float) -> None:
    sender.send(parcel, deadline)


def _close(sender: Sender, _deadline: float) -> None:
    sender.close()


@contextmanager
def _in_time(parcel: Parcel) -> Iterator[None]:
    try:
        yield
    except TimeoutError as error:
        raise not_taken(error, parcel.command_id) from error


def _only(shard: int, shards: int) -> Sequence[int]:
    if not 0 <= shard < shards:
        raise ValueError(f"shard must be from 0 to {shards - 1}")
    return (shard,)


def _signature(body: bytes, key: str | None) -> dict[str, str]:
    return {} if key is None else {SIGNATURE_HEADER: sign(body, key)}


def _connection(broker: BrokerUrl | None, manner: _Manner, timeout_s: float, reuse_redis_client: bool) -> Any:
    options = manner.transport_options(timeout_s)
    if broker is None:
        return Connection(_IN_MEMORY, transport_options=options)
    kind = OneClientConnection if reuse_redis_client else Connection
    return kind.to(broker, timeout_s=timeout_s, heartbeat=_HEARTBEAT_S, transport_options=options)


def _read(broker_url: str) -> BrokerUrl | None:
    if broker_url == _IN_MEMORY:
        return None
    try:
        return read_broker_url(broker_url)
    except ValueError as error:
        raise ValueError(f"broker_url {error}") from None
