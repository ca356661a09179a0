"""The one writer of attempts: it decides and writes a batch of commands in one transaction."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import Connection

from db import batch, inbox, quarantine
from db.batch import Found, Needs
from db.ids import Receipt
from db.inbox import Handled, Key
from db.quarantine import DEFAULT_BOUNDS, Bounds, Unreadable
from db.shards import Renewal
from db.states import TryResult
from db.texts import storable
from db.wake import notify_outcomes
from events.commands import Command
from events.envelope import AWAITED_HEADER
from events.errors import InvigilatorError
from events.fields import MAX_ID
from events.vocabulary import QuarantineCode
from worker.commands import command_types
from worker.commands.decoding import Received
from worker.commands.fold import Fold
from worker.commands.records import Cause
from worker.commands.unit_of_work import UnitOfWork
from worker.kinds import CascadeDecline
from worker.policies import Policies
from worker.rules.moments import Clock


@dataclass(frozen=True, slots=True)
class Written:
    """What a batch has written."""

    decided: list[tuple[Command, Handled]]
    """The commands that were new, and what was decided."""
    quarantined: list[Unreadable]
    """The messages that went to quarantine."""
    discarded: int
    """How many older messages had to make room."""


@dataclass(frozen=True, slots=True)
class ClaimedCascade:
    """A cascade that a worker has claimed, the number of its try, and the cause of the changes that it makes."""

    effect_id: UUID
    number: int
    payload: CascadeDecline
    cause: Cause


class ShardLostError(InvigilatorError):
    """Another process has taken the shard. Nothing of this batch was committed."""

    code = "shard_lost"


@dataclass(frozen=True, slots=True)
class Handler:
    """Handles batches and claimed cascades.

    Parameters:
        policies: of each provider.
        instructor: whether there is an instructor service.
        bounds: how much the quarantine may hold.
        believe_time_for_s: how old the time of a command about an attempt may be, in seconds, to be believed.
    """

    policies: Policies
    instructor: bool
    bounds: Bounds = DEFAULT_BOUNDS
    believe_time_for_s: float = 86_400

    def handle(
        self,
        connection: Connection,
        renewal: Renewal,
        received: Sequence[Received],
        unreadable: Sequence[Unreadable],
    ) -> Written:
        """Write everything that follows from a batch, as the first statements of the caller's transaction.

        This and `settle_cascades` are the only code that changes an attempt. Duplicates change nothing.

        Returns:
            what was decided, and what went to quarantine.

        Raises:
            ShardLostError: the tenure is over, and nothing was written.
        """
        first: dict[Key, Received] = {}
        for item in received:
            first.setdefault(item.key, item)
        begun = batch.begin(
            connection,
            renewal,
            [item.arrival() for item in first.values()],
            _learners(item.command for item in first.values()),
            command_types.needs_of(item.command for item in first.values()),
        )
        if begun is None:
            raise ShardLostError
        new = begun.inbox_ids
        known = inbox.fingerprints(connection, first.keys() - new.keys())
        known |= {key: first[key].fingerprint for key in new}
        reused = [_reused(item) for item in received if not item.fingerprint.matches(known[item.key])]
        quarantined = [*unreadable, *reused]
        kept = quarantine.write(connection, renewal.fence.shard, quarantined, self.bounds)
        fresh = [item for key, item in first.items() if key in new]
        unit_of_work, outcomes = self.decide(
            [(item.command, item.receipt) for item in fresh], begun.found, begun.now
        )
        if kept.has_subscribers:
            unit_of_work.telling.quarantined(quarantined, kept.ids)
        unit_of_work.write(
            connection,
            [
                {
                    "inbox_id": new[item.key],
                    "outcome": handled.outcome,
                    "code": handled.code,
                    "detail": handled.detail,
                    "handled_at": item.receipt.at,
                    **_about(item.command),
                }
                for item, handled in zip(fresh, outcomes, strict=True)
            ],
        )
        if any(AWAITED_HEADER in item.message.headers for item in received):
            notify_outcomes(connection)
        decided = [(item.command, handled) for item, handled in zip(fresh, outcomes, strict=True)]
        return Written(decided, quarantined, kept.discarded)

    def decide(
        self, commands: Sequence[tuple[Command, Receipt]], found: Found, now: datetime
    ) -> tuple[UnitOfWork, list[Handled]]:
        """Decide commands in their order, on what is recorded.

        Parameters:
            commands: each with its receipt.
            found: what is recorded of what they look at.
            now: the database's clock.

        Returns:
            what is to be written, and the outcome of each command.
        """
        unit_of_work = UnitOfWork.on(found)
        fold = Fold(unit_of_work, self.policies, self.instructor)
        clock = Clock(now, timedelta(seconds=self.believe_time_for_s))
        return unit_of_work, [
            command_types.apply(fold, command, receipt, clock) for command, receipt in commands
        ]

    def settle_cascades(self, connection: Connection, claimed: Sequence[ClaimedCascade]) -> list[bool]:
        """Carry out cascades that workers have claimed, and mark them done, in the caller's transaction.

        Returns:
            for each whether it was carried out. False means that the cascade is no longer this try's, because a
            command has carried it out or another worker has claimed it; nothing was changed.
        """
        user_ids = {one.payload.user_id for one in claimed}
        needs = Needs(user_ids=user_ids, course_ids={one.payload.course_id for one in claimed})
        unit_of_work = UnitOfWork.on(batch.lock_and_read(connection, user_ids, needs))
        fold = Fold(unit_of_work, self.policies, self.instructor)
        causes = {(one.effect_id, one.number): one.cause for one in claimed}
        settled: set[UUID] = set()
        for cascade in unit_of_work.owed():
            if cascade.running is not None and (cause := causes.get((cascade.id, cascade.running))):
                fold.decline_siblings(cascade, cause)
                unit_of_work.finish(cascade, cause)
                settled.add(cascade.id)
        unit_of_work.write(connection, result=TryResult.DONE)
        return [one.effect_id in settled for one in claimed]


def _learners(commands: Iterable[Command]) -> set[str]:
    return {command.data.learner_id for command in commands if command.data.learner_id is not None}


def _about(command: Command) -> dict[str, str | None]:
    """Return whom and what a command is about, so that its outcome can be found by that."""
    # Asking a model for a field that it does not have is slow.
    data = vars(command.data)
    to_status = data.get("to_status")
    return {
        "user_id": command.data.learner_id,
        "exam_id": data.get("exam_id"),
        # The sender may have asked for what is no status.
        "to_status": None if to_status is None else storable(to_status, MAX_ID),
        "attempt_code": data.get("attempt_code"),
        "external_id": data.get("external_id"),
    }


def _reused(item: Received) -> Unreadable:
    return item.unreadable(
        QuarantineCode.ID_REUSED,
        "source and id are those of an earlier command with another type or other data; use a new id",
    )
