"""The one writer of attempts: a batch of commands, decided and written in one transaction."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Connection

from db import inbox
from db.effects import finish_try
from db.ids import Stamp
from db.inbox import DEFAULT_BOUNDS, Arrival, Bounds, Handled, Key, Unreadable
from events.commands import (
    AttemptCreate,
    AttemptRemove,
    AttemptUpdateStatus,
    Command,
    CourseUpsert,
    ExamUpsert,
)
from events.vocabulary import QuarantineCode
from worker.commands.fold import Fold
from worker.commands.ledger import Cascade, Cause, Ledger
from worker.effects.kinds import Payload
from worker.policies import Policies


@dataclass(frozen=True, slots=True)
class Received:
    """A message that was understood, and kept whole in case that its id turns out to be somebody else's."""

    command: Command
    stamp: Stamp
    headers: dict[str, Any]
    body: bytes
    fingerprint: bytes

    @property
    def key(self) -> Key:
        """(source, id)."""
        return self.command.source, self.command.id

    def arrival(self) -> Arrival:
        """What the inbox keeps of it."""
        return Arrival(self.key, self.command.type, self.fingerprint)


@dataclass(frozen=True, slots=True)
class Quarantined:
    """What a batch did to the quarantine."""

    messages: list[Unreadable]
    discarded: int
    """How many older ones had to make room."""


@dataclass(frozen=True, slots=True)
class Handler:
    """What a batch needs to know beside itself."""

    policies: Policies
    instructor: bool
    bounds: Bounds = DEFAULT_BOUNDS

    def handle(
        self,
        connection: Connection,
        shard: int,
        received: Sequence[Received],
        unreadable: Sequence[Unreadable],
    ) -> Quarantined:
        """Write everything that a batch means, in the caller's transaction.

        Duplicates change nothing. Returns what went to quarantine.
        """
        first: dict[Key, Received] = {}
        for item in received:
            first.setdefault(item.key, item)
        new = inbox.register(connection, [item.arrival() for item in first.values()])
        known = inbox.fingerprints(connection, first.keys() - new.keys())
        known |= {key: first[key].fingerprint for key in new}
        reused = [_reused(item) for item in received if item.fingerprint != known[item.key]]
        quarantined = [*unreadable, *reused]
        discarded = inbox.write_quarantine(connection, shard, quarantined, self.bounds)
        fresh = [item for key, item in first.items() if key in new]
        outcomes = self.apply(connection, [(item.command, item.stamp) for item in fresh])
        inbox.write_outcomes(
            connection,
            [(new[item.key], item.stamp.at, handled) for item, handled in zip(fresh, outcomes, strict=True)],
        )
        return Quarantined(quarantined, discarded)

    def apply(self, connection: Connection, commands: Sequence[tuple[Command, Stamp]]) -> list[Handled]:
        """Decide commands in the order given and write what follows, in the caller's transaction.

        This, with `settle_cascade`, is the only code that changes an attempt.
        """
        if not commands:
            return []
        ledger = Ledger()
        data = [command.data for command, _ in commands]
        ledger.load(
            connection,
            {item.learner_id for item in data if item.learner_id is not None},
            {i.exam_id for i in data if isinstance(i, AttemptCreate | AttemptUpdateStatus | AttemptRemove)},
            {item.course_id for item in data if isinstance(item, CourseUpsert | ExamUpsert)},
        )
        fold = Fold(ledger, self.policies, self.instructor)
        outcomes = [fold.apply(command, stamp) for command, stamp in commands]
        ledger.write(connection)
        return outcomes

    def settle_cascade(
        self, connection: Connection, effect_id: UUID, number: int, cascade: Payload, cause: Cause
    ) -> bool:
        """Carry out a cascade that a worker has claimed, and mark it done, in the caller's transaction.

        Returns False, having changed nothing, when it is no longer this try's: the handler has folded it in.
        """
        ledger = Ledger()
        ledger.load(connection, {cascade.user_id}, set(), {cascade.course_id})
        if not finish_try(connection, effect_id, number):
            return False
        fold = Fold(ledger, self.policies, self.instructor)
        fold.decline_siblings(Cascade(effect_id, cascade, cause.source, cause.command_id), cause)
        ledger.write(connection)
        return True


def _reused(item: Received) -> Unreadable:
    return Unreadable(
        QuarantineCode.ID_REUSED,
        "source and id are those of an earlier command with another type or other data; use a new id",
        item.headers,
        item.body,
        item.stamp.at,
    )
