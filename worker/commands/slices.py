"""Which commands belong to a shard, also while the number of shards changes, and the barrier of such a change."""

from collections.abc import Set
from dataclasses import dataclass

from db.resharding import Sharding
from events.commands import Command
from events.errors import InvalidMessageError, InvigilatorError
from events.sharding import shard_of
from events.vocabulary import QuarantineCode

_BARRIER = b'{"invigilator.barrier": "%s"}'


class NotDrainedError(InvigilatorError):
    """An older command of the same learner may still wait on the shard that had the learner before."""

    code = "not_drained"


@dataclass(frozen=True, slots=True)
class Slice:
    """The learners whose commands belong to one shard.

    Parameters:
        shard: counted from 0.
        shards: how many there are; while the number changes, how many there were.
        after: how many there will be; None while the number does not change.
        drained: the shards that have handled every command of the learners that they have lost.
        barriers: of every change, this one and earlier ones.
    """

    shard: int
    shards: int
    after: int | None = None
    drained: Set[int] = frozenset()
    barriers: Set[bytes] = frozenset()

    @classmethod
    def of(cls, shard: int, sharding: Sharding) -> "Slice":
        """Return a shard's slice of all learners."""
        change = sharding.resharding
        barriers = frozenset(map(barrier, sharding.barriers))
        if change is None:
            return cls(shard, sharding.rows, barriers=barriers)
        return cls(shard, change.before, change.after, change.drained, barriers)

    def check(self, command: Command) -> None:
        """Refuse a command of a learner of another shard, because the order of the learner's commands is lost.

        Raises:
            InvalidMessageError: `wrong_shard`.
            NotDrainedError: it must wait, with all that came after it.
        """
        user_id = command.data.learner_id
        if user_id is None:
            return
        number, right = self.shards, shard_of(user_id, self.shards)
        if self.after is not None:
            old, new = right, shard_of(user_id, self.after)
            if self.shard == new != old and old not in self.drained:
                raise NotDrainedError
            if old != new and old in self.drained:
                number, right = self.after, new
        if right != self.shard:
            raise InvalidMessageError(
                QuarantineCode.WRONG_SHARD,
                f"belongs to shard {right} of {number} and came on {self.shard}, so its order is not kept; "
                "mend its sender's number of shards, then replay it",
            )


def barrier(secret: str) -> bytes:
    """Return the message that follows all commands that were published by the old number.

    Parameters:
        secret: a text that only the change of the number has.
    """
    return _BARRIER % secret.encode()
