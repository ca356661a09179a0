"""The bodies of answers. They have the fields that the command line prints with --json."""

from datetime import UTC, datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import AfterValidator, BaseModel, ConfigDict

from events.vocabulary import Status

# The session of a database may have any time zone.
Time = Annotated[datetime, AfterValidator(lambda time: time.astimezone(UTC))]
"""A time, in UTC."""


class Attempt(BaseModel):
    """An attempt. `version` counts its transitions. `removed_at` is null while it is live."""

    id: UUID
    exam_id: str
    user_id: str
    attempt_code: str
    status: Status
    taking_as_proctored: bool
    is_sample_attempt: bool
    external_id: str | None
    started_at: Time | None
    completed_at: Time | None
    version: int
    removed_at: Time | None


class Transition(BaseModel):
    """An applied change of an attempt's status. `from_status` is null at its creation."""

    from_status: Status | None
    to_status: Status
    at: Time
    recorded_at: Time
    source: str
    command_id: str


class Effect(BaseModel):
    """What follows from a transition, and how far it is. `waits_for` is an older effect that must end before it."""

    id: UUID
    kind: str
    state: str
    tries: int
    target: str | None
    order_key: str | None
    due_at: Time
    last_error: str | None
    cause: str | None
    failed_at: Time | None
    created_at: Time
    done_at: Time | None
    superseded_by: UUID | None
    waits_for: UUID | None


class ListedEffect(Effect):
    """An effect, and what it is about. `paused` says until when its kind is paused, and why."""

    user_id: str | None
    attempt_code: str | None
    exam_id: str | None
    source: str
    command_id: str
    subscriber: str | None
    label: str
    paused: str | None


class EffectPage(BaseModel):
    """Effects, newest first. `next` is the cursor of the next page, null on the last one."""

    effects: list[ListedEffect]
    next: UUID | None


class Cause(BaseModel):
    """Why effects of a kind fail. `state` is `failed` or `retrying`. `example` is the one that failed last.

    `cause` is null for what failed before causes were kept. `first_seen` is since when the effect that fails for
    longest has been tried in vain. `untried` are those of the retrying ones that a person has had tried again, and
    that were not tried since.
    """

    cause: str | None
    kind: str
    state: Literal["failed", "retrying"]
    count: int
    untried: int
    status: int | None
    reason: str | None
    exception: str | None
    first_seen: Time
    last_seen: Time | None
    example: UUID


class Causes(BaseModel):
    """The causes, the most frequent first."""

    causes: list[Cause]


class RefusedEffect(BaseModel):
    """An effect that was left as it is, and why."""

    id: UUID
    reason: str


class EffectsDone(BaseModel):
    """How many effects were changed, or would be. `act_id` is the act in the audit."""

    act_id: UUID | None = None
    retried: int | None = None
    cancelled: int | None = None
    refused: list[RefusedEffect] | None = None
    next: UUID | None = None
    would_retry: int | None = None
    would_cancel: int | None = None


class PausedKind(BaseModel):
    """A pause. `ends_at` is null for one that lasts until a person ends it."""

    model_config = ConfigDict(from_attributes=True)

    kind: str
    since: Time
    ends_at: Time | None
    reason: str | None


class AttemptHistory(BaseModel):
    """An attempt with its transitions and effects, oldest first."""

    attempt: Attempt
    transitions: list[Transition]
    effects: list[Effect]


class AttemptPage(BaseModel):
    """Attempts, oldest first. `next` is the cursor of the next page, null on the last one."""

    attempts: list[Attempt]
    next: UUID | None


class HandledCommand(BaseModel):
    """What became of a command."""

    source: str
    id: str
    type: str
    outcome: str
    code: str | None
    detail: str | None
    handled_at: Time
    user_id: str | None
    exam_id: str | None
    to_status: str | None
    attempt_code: str | None
    external_id: str | None


class QuarantinedCommand(BaseModel):
    """A command that was not handled. It waits for a person."""

    source: str
    id: str
    outcome: str
    code: str
    detail: str
    received_at: Time
    quarantine_id: int


class SentCommand(BaseModel):
    """A command that the broker has. The other members are there once it has an outcome."""

    source: str
    id: str
    outcome: str | None = None
    code: str | None = None
    detail: str | None = None
    attempt: Attempt | None = None


class SentCommands(BaseModel):
    """The commands of a call, in its order."""

    commands: list[SentCommand]


class Event(BaseModel):
    """An event: a CloudEvent in structured JSON. Attributes without a value are left out."""

    specversion: Literal["1.0"]
    id: UUID
    source: str
    type: str
    time: datetime
    subject: str | None = None
    partitionkey: str | None = None
    sequence: str
    traceparent: str | None = None
    datacontenttype: str
    data: dict[str, Any]


class EventPage(BaseModel):
    """Events, oldest first. `next` is the last position that was looked at: the `after` of the next page."""

    events: list[Event]
    next: int


class Health(BaseModel):
    """Whether the process can do its work, and why not."""

    ready: bool
    reasons: list[str]


class TimelineEntry(BaseModel):
    """Something that happened to a learner. `what` says what sort of thing, and so which members there are besides.

    `recorded_at` is the moment of handling, and `at` when it happened. Where rows were pruned, the first entry is
    `pruned`: what was handled before `before`, by table, may be gone.
    """

    model_config = ConfigDict(extra="allow")

    recorded_at: Time
    at: Time
    what: Literal["command", "quarantined", "attempt", "transition", "effect", "try", "mail", "act", "pruned"]


class Timeline(BaseModel):
    """What happened to a learner, oldest first. `next` is the cursor of the next page, null on the last one."""

    entries: list[TimelineEntry]
    next: str | None
