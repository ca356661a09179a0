"""Collects the events of a batch: what its changes and outcomes tell those who subscribe."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from db.event_log import row
from db.ids import new_receipt
from db.inbox import Handled
from db.quarantine import Unreadable
from db.recordset import Row
from events.commands import Command
from events.event_types import (
    AttemptCreated,
    AttemptData,
    AttemptRemoved,
    AttemptStatusChanged,
    CommandName,
    CommandNotApplied,
    EffectRecovered,
    EventData,
    MessageQuarantined,
)
from events.vocabulary import Outcome, Status
from worker.commands.records import AttemptRecord, Cause
from worker.rules.values import Exam

NAMED_AT_ONCE = 100
"""The most messages of a batch of which each has an event of its own when they go to quarantine."""


@dataclass(slots=True)
class Telling:
    """Makes the events of a batch, in the order of what they tell. Makes none while nobody subscribes."""

    is_on: bool = False
    rows: list[Row] = field(default_factory=list)

    def created(self, record: AttemptRecord, exam: Exam, cause: Cause) -> None:
        """Tell of a new attempt."""
        if self.is_on:
            self._attempt(AttemptCreated(**_attempt(record, exam, cause)), cause)

    def status_changed(self, record: AttemptRecord, exam: Exam, cause: Cause, before: Status) -> None:
        """Tell of another status."""
        if self.is_on:
            after = record.attempt
            data = AttemptStatusChanged(
                **_attempt(record, exam, cause),
                from_status=before,
                to_status=after.status,
                started_at=after.started_at,
                completed_at=after.completed_at,
            )
            self._attempt(data, cause)

    def removed(self, record: AttemptRecord, exam: Exam, cause: Cause, requested_by: str | None) -> None:
        """Tell of a removal.

        Parameters:
            requested_by: the learner who asked for it. None for anybody else: that may be a name.
        """
        if self.is_on:
            values = _attempt(record, exam, cause) | {"at": record.removed_at}
            self._attempt(AttemptRemoved(**values, requested_by=requested_by), cause)

    def not_applied(self, command: Command, handled: Handled, cause: Cause) -> None:
        """Tell that a command has changed nothing, if so."""
        if not self.is_on or handled.outcome is Outcome.APPLIED:
            return
        user_id = command.data.learner_id
        data = CommandNotApplied(
            source=command.source,
            id=command.id,
            type=command.type,
            outcome=handled.outcome,
            code=handled.code,
            detail=handled.detail,
            user_id=user_id,
            exam_id=getattr(command.data, "exam_id", None),
        )
        self._tell(data, cause, subject=None, user_id=user_id)

    def recovered(
        self, effect_id: UUID, tries: int, attempt_code: str | None, user_id: str, cause: Cause
    ) -> None:
        """Tell that a cascade is done that was told as failed."""
        if self.is_on:
            data = EffectRecovered(
                effect_id=effect_id,
                kind="cascade_decline",
                attempt_code=attempt_code,
                reason=None,
                tries=tries,
            )
            self._tell(data, cause, attempt_code, user_id)

    def quarantined(self, messages: Sequence[Unreadable], quarantine_ids: Sequence[int]) -> None:
        """Tell which messages went to quarantine, of very many only how many.

        The caller knows that somebody subscribes.

        Parameters:
            quarantine_ids: of the messages, in their order. There is at least one.
        """
        told = (
            [_message(*one) for one in zip(messages, quarantine_ids, strict=True)]
            if len(messages) <= NAMED_AT_ONCE
            else [_messages(messages)]
        )
        # Messages are no commands: an event of a batch that is run again need not have the id that it had.
        receipt = new_receipt()
        self.rows += [row(*one, receipt.at) for one in zip(receipt.ids(), told, strict=False)]

    def _attempt(self, data: AttemptData, cause: Cause) -> None:
        self._tell(data, cause, data.attempt_code, data.user_id)

    def _tell(self, data: EventData, cause: Cause, subject: str | None, user_id: str | None) -> None:
        self.rows.append(
            row(
                next(cause.ids),
                data,
                cause.handled_at,
                subject=subject,
                user_id=user_id,
                traceparent=cause.traceparent,
            )
        )


def _attempt(record: AttemptRecord, exam: Exam, cause: Cause) -> dict[str, Any]:
    attempt = record.attempt
    return {
        "attempt_code": attempt.code,
        "exam_id": record.exam_id,
        "course_id": exam.course_id,
        "content_id": exam.content_id,
        "user_id": record.user_id,
        "external_id": attempt.external_id,
        "taking_as_proctored": attempt.taking_as_proctored,
        "is_sample_attempt": attempt.is_sample_attempt,
        "status": attempt.status,
        "version": record.version,
        "at": record.changed_at,
        "cascaded_from": cause.cascaded_from,
        "command": CommandName(source=cause.source, id=cause.command_id),
    }


def _message(message: Unreadable, quarantine_id: int) -> MessageQuarantined:
    return MessageQuarantined(
        quarantine_id=quarantine_id,
        code=message.code,
        source=message.source,
        id=message.command_id,
        size=len(message.body),
    )


def _messages(messages: Sequence[Unreadable]) -> MessageQuarantined:
    size = sum(len(message.body) for message in messages)
    return MessageQuarantined(
        quarantine_id=None, code=None, source=None, id=None, size=size, count=len(messages)
    )
