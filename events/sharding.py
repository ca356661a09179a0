"""Chooses the queue of a command. All commands of one learner go to the same queue, so they keep their order."""

import json
import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Self

from .commands import CommandData

MAX_SHARDS = 1024

SHARDS_KEY = "invigilator.commands.shards"
"""Where `consume` tells how many shards there are. On Redis it is a string, a decimal number. On RabbitMQ it is a
stream queue, and its last message is an `Announcement` as JSON."""

NEXT_SHARDS_KEY = f"{SHARDS_KEY}.next"
"""The key on Redis that holds the number that will count soon, a decimal number. It exists only for that time."""


@dataclass(frozen=True, slots=True)
class Announcement:
    """What `consume` tells publishers of the number of shards.

    Parameters:
        shards: the number that counts.
        next: the number that will count soon. While it is told, publishers ask before each message, so that all of
            them go over to it at one moment. None at all other times.
        version: grows with each change of the number. An announcement of a lower version is out of date.
    """

    shards: int
    next: int | None = None
    version: int = 0

    def render(self) -> bytes:
        """Return it as JSON, as it is on RabbitMQ.

        Example:
            >>> Announcement(4, next=8, version=1).render()
            b'{"shards": 4, "next": 8, "version": 1}'
        """
        return json.dumps(asdict(self)).encode()

    @classmethod
    def read(cls, body: bytes) -> Self | None:
        """Return the announcement in a message. None when the message is none.

        Example:
            >>> Announcement.read(b'{"shards": 4, "next": null, "version": 2}')
            Announcement(shards=4, next=None, version=2)
            >>> Announcement.read(b'{"shards": 0}') is None
            True
        """
        try:
            told = json.loads(body)
            shards, following, version = told["shards"], told.get("next"), told.get("version", 0)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return None
        if not (_is_number(shards) and (following is None or _is_number(following)) and type(version) is int):
            return None
        return cls(shards, following, version)


def read_number(text: object) -> int | None:
    """Return the number of shards that a string on Redis holds. None when it holds none.

    Example:
        >>> read_number(b"4"), read_number(b"four"), read_number(None)
        (4, None, None)
    """
    if not (isinstance(text, bytes) and text.isdigit() and len(text) <= len(str(MAX_SHARDS))):
        return None
    return int(text) if _is_number(int(text)) else None


def _is_number(value: object) -> bool:
    return type(value) is int and 1 <= value <= MAX_SHARDS


def queue_name(shard: int) -> str:
    """Return the name of a shard's queue.

    Parameters:
        shard: counted from 0.
    """
    return f"invigilator.commands.{shard}"


def shard_of(user_id: str, shards: int) -> int:
    """Return the shard of a learner, counted from 0. Publishers in every language must agree on it.

    Parameters:
        user_id: the learner.
        shards: how many there are, at least 1.
    """
    return zlib.crc32(user_id.encode("utf-8")) % shards


def shards_of(data: CommandData, shards: int) -> Sequence[int]:
    """Return the shards that a command goes to: its learner's, or all when it belongs to no learner.

    Parameters:
        data: what the command asks for.
        shards: how many there are, at least 1.
    """
    if data.learner_id is None:
        return range(shards)
    return (shard_of(data.learner_id, shards),)
