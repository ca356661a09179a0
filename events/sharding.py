"""Chooses the queue of a command. All commands of one learner go to the same queue, so they keep their order."""

import zlib
from collections.abc import Sequence

from .commands import CommandData

MAX_SHARDS = 1024

SHARDS_KEY = "invigilator.commands.shards"
"""The key on Redis under which `consume` writes how many shards there are: a string, a decimal number."""


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
