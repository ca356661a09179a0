"""How many shards there are, as far as a publisher knows: what it was told, and what the broker says."""

import logging
import time
from collections.abc import Callable
from enum import Enum, auto
from typing import Any

from .errors import PublishError, ShardsMismatchError
from .sharding import NEXT_SHARDS_KEY, SHARDS_KEY, Announcement, read_number

logger = logging.getLogger(__name__)

ASK_EVERY_S = 10.0
"""Seconds between two questions how many shards there are. After a new connection the broker is asked at once, and
before each message while the number is about to change."""
ASK_AGAIN_S = 1.0
"""Seconds until the next question when the broker did not say. They double with each such answer in a row, up to
`ASK_EVERY_S`, because each is a line in RabbitMQ's log."""
MAX_DOUBLINGS = 10

STREAM_TIMEOUT_S = 2.0
"""Seconds in which RabbitMQ must deliver the last message of a stream. A stream without one delivers nothing."""
STREAM_PREFETCH = 100
ACCESS_REFUSED = 403
"""What RabbitMQ answers who may not read a queue."""
NO_QUEUE = "no queue"
"""What RabbitMQ says of a queue that was never made. Of one whose node is away it says something else."""


class Silence(Enum):
    """Why the broker does not say how many shards there are."""

    UNTOLD = auto()  # it was never told, or we may not read it
    QUIET = auto()  # it was just about to be told, or it is slow, or about to choose another leader


Ask = Callable[[Any], Announcement | Silence]
"""Asks the broker, over one of kombu's channels."""


class ShardCount:
    """How many shards there are. Compares what the publisher was told with what the broker says.

    Parameters:
        told: None when the publisher was not told.
        assumed: the number that counts for a publisher that was not told one, and a broker that was not either.
    """

    def __init__(self, told: int | None, assumed: int = 1) -> None:
        self._told = told
        self._is_unknown = told is None
        self._ask_at = 0.0
        self._version = 0
        self._unanswered = 0
        self._is_changing = False
        self.number = told or assumed
        """The number that counts. The broker's last answer stays when the broker was emptied."""

    def is_stale(self) -> bool:
        """Return whether it is time to ask the broker."""
        return self._is_changing or time.monotonic() >= self._ask_at

    def forget(self) -> None:
        """Make it time to ask the broker, which may be another one, or may have been restored from a backup."""
        self._ask_at = 0.0
        self._version = 0

    def hear(self, answer: Announcement | Silence, asked_at: float, command_id: str | None) -> bool:
        """Take the broker's answer. Returns whether the number counts now.

        It does not when it was about to change and the broker, which may have been emptied, does not say whether it
        has changed. Then nothing may be sent until the broker says it.

        Parameters:
            answer: what the broker says, or why it does not say it.
            asked_at: when the question was asked, by `time.monotonic`. The answer may be as old.
            command_id: the id of the command that is about to be sent, for the error.

        Raises:
            ShardsMismatchError: it is not the number that the publisher was told.
            PublishError: the broker was told a number and does not say it, and none was heard before.
        """
        if answer is Silence.QUIET and self._is_unknown:
            raise PublishError(
                f"the broker does not say how many shards there are ({SHARDS_KEY} is silent): nothing was sent; "
                "publish again with the same id, and see that Invigilator's consumer runs",
                command_id,
            )
        if isinstance(answer, Silence):
            self._ask_at = asked_at + min(ASK_AGAIN_S * 2**self._unanswered, ASK_EVERY_S)
            self._warn()
            self._unanswered = min(self._unanswered + 1, MAX_DOUBLINGS)
            return not self._is_changing
        if self._told not in (None, answer.shards):
            raise ShardsMismatchError(
                f"this publisher was told that there are {self._told} shards, but the broker says {answer.shards}: "
                "nothing was sent; leave the number out, or mend it, and publish again with the same id",
                command_id,
            )
        self._unanswered = 0
        if answer.version < self._version:
            return not self._is_changing
        self._version = answer.version
        self._is_unknown = False
        self.number = answer.shards
        self._is_changing = answer.next is not None
        self._ask_at = asked_at + ASK_EVERY_S
        return True

    def _warn(self) -> None:
        if not self._unanswered:
            logger.warning(
                "the broker does not say how many shards there are (%s is missing or may not be read): publishing "
                "to %d; commands on a wrong shard are not handled. `invigilator consume` writes it there",
                SHARDS_KEY,
                self.number,
            )


def ask_redis(channel: Any) -> Announcement | Silence:
    """Ask Redis or Valkey."""
    # In this order: when the number changes in between, the answer is to ask again.
    with channel.conn_or_acquire() as client:
        following = read_number(_get(channel, client, NEXT_SHARDS_KEY))
        shards = read_number(_get(channel, client, SHARDS_KEY))
    return Silence.UNTOLD if shards is None else Announcement(shards, following)


def _get(channel: Any, client: Any, key: str) -> object:
    try:
        return client.get(key)
    except channel.ResponseError:  # we may not read it, or it is no string
        return None


def ask_rabbitmq(channel: Any) -> Announcement | Silence:
    """Ask RabbitMQ. A stream can be read by many at once, and reading takes nothing out of it."""
    connection = channel.connection
    heard: list[Announcement] = []

    def on_message(message: Any) -> None:
        announcement = Announcement.read(_bytes(message.body))
        if announcement is not None:
            heard.append(announcement)

    # A channel of its own: RabbitMQ closes it when there is no such queue, or when we may not read it.
    asking = connection.channel()
    try:
        asking.basic_qos(0, STREAM_PREFETCH, False)
        tag = asking.basic_consume(SHARDS_KEY, callback=on_message, arguments={"x-stream-offset": "last"})
        deadline = time.monotonic() + STREAM_TIMEOUT_S
        while not heard and (left_s := deadline - time.monotonic()) > 0:
            connection.drain_events(timeout=left_s)
        asking.basic_cancel(tag)  # everything that was delivered comes before the answer
    except connection.channel_errors as error:
        # Any other error may go by itself, such as that no replica of the stream is there yet.
        if error.code == ACCESS_REFUSED or NO_QUEUE in str(error):
            return Silence.UNTOLD
    except TimeoutError:
        pass
    except connection.connection_errors as error:
        # RabbitMQ ends the connection with an internal error when the stream is being made at this moment. kombu
        # asks again over another connection after errors of the network only.
        raise ConnectionError("RabbitMQ has ended the connection") from error
    finally:
        asking.close()
    return max(heard, key=lambda one: one.version, default=Silence.QUIET)


def _bytes(body: bytes | str) -> bytes:
    return body if isinstance(body, bytes) else body.encode()
