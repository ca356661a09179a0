"""The commands that an LMS publishes: one method for each."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from typing import Any, Final, Generic, TypeVar
from uuid import uuid4

from .commands import (
    AttemptCreate,
    AttemptRemove,
    AttemptUpdateStatus,
    Command,
    CommandData,
    CourseUpsert,
    ExamUpsert,
    LearnerUpsert,
    read_data,
)
from .vocabulary import IfMissing, Status


class NotGiven(Enum):
    """The type of `NOT_GIVEN`, which `repr` shows in signatures."""

    NOT_GIVEN = "left out"

    def __repr__(self) -> str:
        return "NOT_GIVEN"


NOT_GIVEN: Final = NotGiven.NOT_GIVEN
"""The default of an optional field: the command does not have the field."""

Answer = TypeVar("Answer")
"""What a method returns: the command's id, or a coroutine that does."""


@dataclass(frozen=True, slots=True)
class NewCommand:
    """The arguments of one call of a method, not checked yet."""

    model: type[CommandData]
    fields: Mapping[str, Any]
    command_id: str | None
    time: datetime | None
    traceparent: str | None = None

    def made_by(self, source: str) -> Command:
        """Return the command. What is missing is filled in: a new id, and the time now.

        Raises:
            InvalidMessageError: `invalid_data`, when a field is wrong.
        """
        return Command(
            source=source,
            id=str(uuid4()) if self.command_id is None else self.command_id,
            data=read_data(self.model, self.fields),
            time=datetime.now(UTC) if self.time is None else self.time,
            traceparent=self.traceparent,
        )


class CommandMethods(ABC, Generic[Answer]):
    """One method for each command. All take the command's fields, and return and raise the same.

    The parameters are the fields of the command's data in the contract, under *Commands in*, and three more. An
    optional field that is left out is not sent: an upsert then keeps what is known.

    Name the attempt in every command about it, by `attempt_code` or `external_id`. Without a name, a command that
    arrives late is applied to whichever attempt is live then.

    Parameters:
        command_id: the command's id; a new one when left out.
        time: when it happened, with an offset from UTC; now when left out.
        traceparent: the trace that the command belongs to (W3C Trace Context). What follows from it carries the
            trace, too. A malformed one is not sent.

    Returns:
        the command's id. Of an `AsyncPublisher`, a coroutine that returns it.

    Raises:
        InvalidMessageError: an argument is wrong. Nothing was sent.
        PublishError: the broker did not take the command.
    """

    def upsert_course(
        self,
        *,
        course_id: str | int,
        name: str | NotGiven | None = NOT_GIVEN,
        provider: str | NotGiven | None = NOT_GIVEN,
        gives_credit: bool | NotGiven = NOT_GIVEN,
        command_id: str | None = None,
        time: datetime | None = None,
        traceparent: str | None = None,
    ) -> Answer:
        """Publish a course's details. See `CommandMethods`."""
        fields = {
            "course_id": course_id,
            "name": name,
            "provider": provider,
            "gives_credit": gives_credit,
        }
        return self._publish_new(NewCommand(CourseUpsert, _given(fields), command_id, time, traceparent))

    def upsert_exam(
        self,
        *,
        exam_id: str | int,
        course_id: str | int,
        content_id: str | int,
        exam_name: str,
        is_proctored: bool | NotGiven = NOT_GIVEN,
        is_practice_exam: bool | NotGiven = NOT_GIVEN,
        is_active: bool | NotGiven = NOT_GIVEN,
        time_limit_mins: int | NotGiven | None = NOT_GIVEN,
        command_id: str | None = None,
        time: datetime | None = None,
        traceparent: str | None = None,
    ) -> Answer:
        """Publish an exam's details. See `CommandMethods`."""
        fields = {
            "exam_id": exam_id,
            "course_id": course_id,
            "content_id": content_id,
            "exam_name": exam_name,
            "is_proctored": is_proctored,
            "is_practice_exam": is_practice_exam,
            "is_active": is_active,
            "time_limit_mins": time_limit_mins,
        }
        return self._publish_new(NewCommand(ExamUpsert, _given(fields), command_id, time, traceparent))

    def upsert_learner(
        self,
        *,
        user_id: str | int,
        username: str,
        email: str,
        full_name: str | NotGiven | None = NOT_GIVEN,
        language: str | NotGiven | None = NOT_GIVEN,
        time_zone: str | NotGiven | None = NOT_GIVEN,
        command_id: str | None = None,
        time: datetime | None = None,
        traceparent: str | None = None,
    ) -> Answer:
        """Publish a learner's details. See `CommandMethods`."""
        fields = {
            "user_id": user_id,
            "username": username,
            "email": email,
            "full_name": full_name,
            "language": language,
            "time_zone": time_zone,
        }
        return self._publish_new(NewCommand(LearnerUpsert, _given(fields), command_id, time, traceparent))

    def create_attempt(
        self,
        *,
        exam_id: str | int,
        user_id: str | int,
        attempt_code: str | int | NotGiven | None = NOT_GIVEN,
        taking_as_proctored: bool | NotGiven = NOT_GIVEN,
        external_id: str | int | NotGiven | None = NOT_GIVEN,
        command_id: str | None = None,
        time: datetime | None = None,
        traceparent: str | None = None,
    ) -> Answer:
        """Ask for an attempt of a learner at an exam. See `CommandMethods`."""
        fields = {
            "exam_id": exam_id,
            "user_id": user_id,
            "attempt_code": attempt_code,
            "taking_as_proctored": taking_as_proctored,
            "external_id": external_id,
        }
        return self._publish_new(NewCommand(AttemptCreate, _given(fields), command_id, time, traceparent))

    def update_status(
        self,
        *,
        exam_id: str | int,
        user_id: str | int,
        to_status: Status | str | None,
        cascade_effects: bool | NotGiven = NOT_GIVEN,
        attempt_code: str | int | NotGiven | None = NOT_GIVEN,
        external_id: str | int | NotGiven | None = NOT_GIVEN,
        from_statuses: Collection[Status | str] | NotGiven | None = NOT_GIVEN,
        if_missing: IfMissing | str | NotGiven = NOT_GIVEN,
        command_id: str | None = None,
        time: datetime | None = None,
        traceparent: str | None = None,
    ) -> Answer:
        """Ask for another status of a learner's attempt. See `CommandMethods`."""
        fields = {
            "exam_id": exam_id,
            "user_id": user_id,
            "to_status": to_status,
            "cascade_effects": cascade_effects,
            "attempt_code": attempt_code,
            "external_id": external_id,
            "from_statuses": from_statuses,
            "if_missing": if_missing,
        }
        return self._publish_new(
            NewCommand(AttemptUpdateStatus, _given(fields), command_id, time, traceparent)
        )

    def remove_attempt(
        self,
        *,
        exam_id: str | int,
        user_id: str | int,
        requested_by: str | NotGiven | None = NOT_GIVEN,
        attempt_code: str | int | NotGiven | None = NOT_GIVEN,
        external_id: str | int | NotGiven | None = NOT_GIVEN,
        from_statuses: Collection[Status | str] | NotGiven | None = NOT_GIVEN,
        if_missing: IfMissing | str | NotGiven = NOT_GIVEN,
        command_id: str | None = None,
        time: datetime | None = None,
        traceparent: str | None = None,
    ) -> Answer:
        """Ask for the removal of a learner's attempt. See `CommandMethods`."""
        fields = {
            "exam_id": exam_id,
            "user_id": user_id,
            "requested_by": requested_by,
            "attempt_code": attempt_code,
            "external_id": external_id,
            "from_statuses": from_statuses,
            "if_missing": if_missing,
        }
        return self._publish_new(NewCommand(AttemptRemove, _given(fields), command_id, time, traceparent))

    @abstractmethod
    def _publish_new(self, new: NewCommand) -> Answer:
        """Publish a command, and return its id."""


def _given(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not NOT_GIVEN}
