"""What Invigilator tells: one model for the data of each type of event.

An event type is a model here, with its name in `EVENT_TYPES`. Fields are only ever added, and a reader ignores
those that it does not know. Events hold no names and no addresses.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime
from fnmatch import fnmatchcase
from types import MappingProxyType
from typing import ClassVar
from uuid import UUID

from pydantic import BaseModel, ConfigDict

from .vocabulary import Outcome, OutcomeCode, QuarantineCode, Status


class EventData(BaseModel):
    """What one event says: the `data` of its CloudEvent."""

    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)

    event_type: ClassVar[str]


class CommandName(BaseModel):
    """Which command it was."""

    model_config = ConfigDict(frozen=True)

    source: str
    id: str


class AttemptData(EventData):
    """An attempt after a change.

    `at` is when it happened, which may be before it was handled. `cascaded_from` is the code of the attempt whose
    change led to this one. `command` is the command that it follows from; for a cascade the one that started it.
    """

    attempt_code: str
    exam_id: str
    course_id: str
    content_id: str
    user_id: str
    external_id: str | None
    taking_as_proctored: bool
    is_sample_attempt: bool
    status: Status
    version: int
    at: datetime
    cascaded_from: str | None
    command: CommandName


class AttemptCreated(AttemptData):
    """A learner has a new attempt."""

    event_type: ClassVar[str] = "exam.attempt.created.v1"


class AttemptStatusChanged(AttemptData):
    """An attempt has another status."""

    event_type: ClassVar[str] = "exam.attempt.status-changed.v1"

    from_status: Status
    to_status: Status
    started_at: datetime | None
    completed_at: datetime | None


class AttemptRemoved(AttemptData):
    """An attempt was removed. `requested_by` is who asked for it, if that is a known learner."""

    event_type: ClassVar[str] = "exam.attempt.removed.v1"

    requested_by: str | None


class CommandNotApplied(EventData):
    """A command changed nothing: it was unchanged, ignored or rejected."""

    event_type: ClassVar[str] = "exam.command.not-applied.v1"

    source: str
    id: str
    type: str
    outcome: Outcome
    code: OutcomeCode | None
    detail: str | None
    user_id: str | None
    exam_id: str | None


class MessageQuarantined(EventData):
    """A message is no valid command. Of many at once, one event gives the number, and names none of them.

    `size` is in bytes, of all of them together.
    """

    event_type: ClassVar[str] = "exam.message.quarantined.v1"

    quarantine_id: int | None
    code: QuarantineCode | None
    source: str | None
    id: str | None
    size: int
    count: int = 1


class EffectFailed(EventData):
    """An effect has failed for good: the other side refused it, or could not be reached for too long."""

    event_type: ClassVar[str] = "exam.effect.failed.v1"

    effect_id: UUID
    kind: str
    attempt_code: str | None
    reason: str | None
    tries: int


class EffectRecovered(EffectFailed):
    """An effect that was told as failed is done after all. `reason` is null."""

    event_type: ClassVar[str] = "exam.effect.recovered.v1"


class WebhookTest(EventData):
    """Somebody tries a webhook. It is sent to that webhook alone, and is not in the log."""

    event_type: ClassVar[str] = "exam.webhook.test.v1"

    webhook: str


def has_type(event_type: str, patterns: Iterable[str]) -> bool:
    """Return whether a type fits one of some shell patterns over the whole type.

    Example:
        >>> has_type("exam.attempt.created.v1", ["exam.attempt.*"])
        True
    """
    return any(fnmatchcase(event_type, pattern) for pattern in patterns)


def check_patterns(patterns: Iterable[str]) -> None:
    """Make sure that every pattern fits a type of the log.

    Raises:
        ValueError: one fits none. The text says which types there are.
    """
    for pattern in patterns:
        if not any(has_type(name, [pattern]) for name in EVENT_TYPES):
            raise ValueError(f"each must fit one of {', '.join(EVENT_TYPES)}")


def types_of(*models: type[EventData]) -> Mapping[str, type[EventData]]:
    """Return models by their types.

    Raises:
        TypeError: a model has no type, or that of another.
    """
    types: dict[str, type[EventData]] = {}
    for model in models:
        if "event_type" not in vars(model) or model.event_type in types:
            raise TypeError(f"{model.__name__}: needs an `event_type` of its own")
        types[model.event_type] = model
    return MappingProxyType(types)


EVENT_TYPES = types_of(
    AttemptCreated,
    AttemptStatusChanged,
    AttemptRemoved,
    CommandNotApplied,
    MessageQuarantined,
    EffectFailed,
    EffectRecovered,
)
"""The data of every event of the log, by the name of its type."""
