"""The commands that Invigilator understands: what an LMS may ask for.

A command type is a model here, with an entry in `worker.commands.command_types`.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Annotated, Any, ClassVar

from pydantic import BeforeValidator, Field, ValidationError, WithJsonSchema

from .errors import InvalidMessageError
from .fields import Email, Frozen, Id, Key, Language, Minutes, Text, TimeZone, explain
from .vocabulary import IfMissing, QuarantineCode, Status


def _as_tuple(value: object) -> object:
    return tuple(value) if isinstance(value, list | set | frozenset) else value


# JSON has neither tuples nor enums. pydantic 2.5 knows no tuple that is not strict.
Statuses = Annotated[tuple[Annotated[Status, Field(strict=False)], ...], BeforeValidator(_as_tuple)]
"""A list of statuses."""


class CommandData(Frozen):
    """What one command asks for: the `data` of its CloudEvent."""

    type: ClassVar[str]

    @property
    def learner_id(self) -> str | None:
        """The learner whose commands are kept in order. None for a command that belongs to no learner."""
        return None


class LearnerData(CommandData):
    """A command that belongs to one learner."""

    user_id: Id

    @property
    def learner_id(self) -> str:
        """The learner whose commands are kept in order."""
        return self.user_id


class CourseUpsert(CommandData):
    """A course is there, or its details have changed. A field that is left out keeps what is known."""

    type: ClassVar[str] = "course.upsert.v1"

    course_id: Id
    name: Text | None = None
    provider: Text | None = None
    gives_credit: bool = True


class ExamUpsert(CommandData):
    """An exam is there, or its details have changed. Its course need not be there yet.

    An optional field that is left out keeps what is known.
    """

    type: ClassVar[str] = "exam.upsert.v1"

    exam_id: Id
    course_id: Id
    content_id: Id
    exam_name: Text
    is_proctored: bool = True
    is_practice_exam: bool = False
    is_active: bool = True
    time_limit_mins: Minutes | None = None


class LearnerUpsert(LearnerData):
    """A learner is there, or their details have changed. An optional field that is left out keeps what is known."""

    type: ClassVar[str] = "learner.upsert.v1"

    # Personal data stays out of every repr, and so out of logs.
    username: Key = Field(repr=False)
    email: Email = Field(repr=False)
    full_name: Text | None = Field(default=None, repr=False)
    language: Language | None = None
    time_zone: TimeZone | None = None


class AttemptCreate(LearnerData):
    """A learner gets an attempt at an exam.

    `attempt_code` is unique for ever. Without it the code is the attempt's UUID.
    """

    type: ClassVar[str] = "exam.attempt.create.v1"

    exam_id: Id
    attempt_code: Id | None = None
    taking_as_proctored: bool = False
    external_id: Id | None = None


class AttemptData(LearnerData):
    """A command about an attempt that is there.

    `attempt_code` and `external_id` say which attempt is meant. The exam and the learner alone do not: the attempt
    may have been removed and another one created since the command was sent. `from_statuses` are those in which the
    attempt must be for the command to be handled.
    """

    exam_id: Id
    attempt_code: Id | None = None
    external_id: Id | None = None
    from_statuses: Statuses | None = None
    if_missing: Annotated[IfMissing, Field(strict=False)] = IfMissing.REJECT


class AttemptUpdateStatus(AttemptData):
    """A learner's attempt is to have another status.

    A `to_status` that is no status, or null, does not end in quarantine: it gets an outcome, `unknown_status`. The
    JSON Schema refuses it all the same, because nobody means to send one.
    """

    type: ClassVar[str] = "exam.attempt.update-status.v1"

    to_status: Annotated[str | None, WithJsonSchema({"type": "string", "enum": [*Status]})]
    cascade_effects: bool = True


class AttemptRemove(AttemptData):
    """A learner's attempt is to be removed, so that a new one may be created."""

    type: ClassVar[str] = "exam.attempt.remove.v1"

    requested_by: Text | None = None


def types_of(*models: type[CommandData]) -> Mapping[str, type[CommandData]]:
    """Return models by their types.

    Parameters:
        models: the data of commands.

    Raises:
        TypeError: a model has no type, or that of another, or belongs to a learner and does not say so.
    """
    types: dict[str, type[CommandData]] = {}
    for model in models:
        name = getattr(model, "type", None)
        if name is None or name in types:
            raise TypeError(f"{model.__name__}: needs a `type` of its own")
        if "user_id" in model.model_fields and not issubclass(model, LearnerData):
            # Or its commands would be neither sharded nor locked with the others of the learner.
            raise TypeError(f"{model.__name__}: has a user_id, so it must inherit LearnerData")
        types[name] = model
    return MappingProxyType(types)


COMMAND_TYPES = types_of(
    CourseUpsert,
    ExamUpsert,
    LearnerUpsert,
    AttemptCreate,
    AttemptUpdateStatus,
    AttemptRemove,
)
"""The data of every command, by the name of its type. `worker.commands.command_types` says how each is handled."""


def model_of(name: str) -> type[CommandData]:
    """Return the model of a command type's data.

    Parameters:
        name: the type, such as `exam.attempt.create.v1`.

    Raises:
        InvalidMessageError: `unknown_type`.
    """
    model = COMMAND_TYPES.get(name)
    if model is None:
        raise InvalidMessageError(
            QuarantineCode.UNKNOWN_TYPE, f"type: must be one of {', '.join(COMMAND_TYPES)}"
        )
    return model


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What a command asks for, so that it can be compared later with another that has the same id.

    Parameters:
        digest: SHA-256 of the type and of the data that differ from the defaults; 32 bytes. It is stored for ever,
            and older releases know nothing else.
        sent_defaults: the names of the fields that were sent with their default values, in order, with commas. None
            when an older release has stored the fingerprint.
    """

    digest: bytes
    sent_defaults: str | None

    def matches(self, other: "Fingerprint") -> bool:
        """Return whether two commands ask for the same: the same type, and the same data as it was sent."""
        defaults = (self.sent_defaults, other.sent_defaults)
        return self.digest == other.digest and (None in defaults or defaults[0] == defaults[1])


@dataclass(frozen=True, slots=True)
class Command:
    """One command. `source` and `id` together say which one: the same pair again is the same command.

    Parameters:
        source: who sent it, 1 to 255 characters.
        id: unique within the source, 1 to 255 characters.
        data: what is asked for.
        time: when it happened, with an offset; None when the sender did not say.
        traceparent: the trace that it belongs to (W3C Trace Context), or None.
    """

    source: str
    id: str
    data: CommandData
    time: datetime | None = None
    traceparent: str | None = None

    @property
    def type(self) -> str:
        """The name of the command's type on the wire, for example `exam.attempt.create.v1`."""
        return self.data.type

    def fingerprint(self) -> Fingerprint:
        """Return what tells the command from another with the same id.

        A field that is left out differs from one that was sent with its default: for an upsert the two mean
        different things. `time` and `traceparent` do not count, because a sender may stamp each try anew.
        """
        data = self.data.model_dump(mode="json", exclude_defaults=True)
        digest = hashlib.sha256(_canonical([self.type, data]).encode("ascii")).digest()
        return Fingerprint(digest, ",".join(sorted(self.data.model_fields_set - data.keys())))


_canonical = json.JSONEncoder(sort_keys=True, separators=(",", ":")).encode
"""For ever: fingerprints are stored."""


def read_data(model: type[CommandData], fields: Mapping[str, Any]) -> CommandData:
    """Check the data of a command.

    Parameters:
        model: what the command's type asks for, from `COMMAND_TYPES`.
        fields: the fields as they stand in the message.

    Raises:
        InvalidMessageError: `invalid_data`, with each wrong field and what is expected of it.
    """
    try:
        return model.model_validate(fields)
    except ValidationError as error:
        raise InvalidMessageError(QuarantineCode.INVALID_DATA, explain(error)) from None
