"""What an entry of `worker.kinds` is made of, and what makes it complete."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from typing import Any, Generic, Protocol, TypeVar
from uuid import UUID

from pydantic import TypeAdapter, ValidationError

from worker.errors import Permanent

QUEUE_PREFIX = "invigilator.effects."
"""Every queue of effects begins with it."""

_NAME = re.compile(r"[a-z][a-z0-9_]*")
_QUEUE = re.compile(re.escape(QUEUE_PREFIX) + r"[a-z][a-z0-9_]*")
_ACTION = re.compile(r"worker\.effects\.[a-z][a-z0-9_]*:[A-Z][A-Za-z0-9]*")


class UnreadablePayloadError(Permanent):
    """The stored payload lacks a field that its kind needs."""

    code = "unreadable_payload"


@dataclass(frozen=True, slots=True, kw_only=True)
class Payload:
    """What an effect needs to run, fixed when it came to be owed. It holds ids only, no names or addresses.

    A kind adds what it needs in a subclass. These four fields are there for every kind: labels show the first two,
    and release 0.1.0 reads all of them. A kind that may be about no exam or no learner has "" there.
    """

    exam_id: str
    user_id: str
    course_id: str
    content_id: str


P = TypeVar("P", bound=Payload)
P_contra = TypeVar("P_contra", bound=Payload, contravariant=True)


class Target(Protocol[P_contra]):
    """What an effect changes on the other side, and what that means for other effects on the same target."""

    def of(self, payload: P_contra) -> str | None:
        """Return the name of the state that the effect sets. None if it sets none."""
        ...

    def order_key(self, payload: P_contra, attempt_id: UUID | None) -> str | None:
        """Return what names the effects that run one at a time, oldest first. None if the effect waits for none.

        Parameters:
            attempt_id: None for an effect that is about no attempt.
        """
        ...


@dataclass(frozen=True, slots=True)
class EachOwed:
    """Every effect is owed, and in any order: a reset."""

    def of(self, payload: Payload) -> None:
        """Return None: the effect shares its target with no other."""

    def order_key(self, payload: Payload, attempt_id: UUID | None) -> None:
        """Return None."""


@dataclass(frozen=True, slots=True)
class InOrder(Generic[P_contra]):
    """Every effect is owed. Those with the same key run one at a time, oldest first: the mails about an attempt.

    An effect has ended for the next one when it is done, or has failed for good, or was cancelled.

    Parameters:
        key: the key for a payload and the id of its attempt, at most `worker.kinds.MAX_TARGET_CHARS` characters.
            No other kind uses such a key, unless effects of both kinds are to wait for each other. None for an
            effect that waits for no other.
    """

    key: Callable[[P_contra, UUID | None], str | None]

    def of(self, payload: P_contra) -> None:
        """Return None."""

    def order_key(self, payload: P_contra, attempt_id: UUID | None) -> str | None:
        """Return the key."""
        return self.key(payload, attempt_id)


@dataclass(frozen=True, slots=True)
class LatestWins(Generic[P_contra]):
    """The target holds state. One effect runs on it at a time, and a newer one supersedes those before it.

    Parameters:
        name: the target's name for a payload, at most `worker.kinds.MAX_TARGET_CHARS` characters.
    """

    name: Callable[[P_contra], str]

    def of(self, payload: P_contra) -> str:
        """Return the target's name."""
        return self.name(payload)

    def order_key(self, payload: P_contra, attempt_id: UUID | None) -> None:
        """Return None."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry(Generic[P]):
    """Everything that the worker knows about one kind of effect. Every field is required.

    Parameters:
        name: unique. It is stored in the effect's row, and `effects.<name>` is the Celery task.
        queue: the Celery queue, which also names the circuit of the service. Kinds share a queue if they call the
            same service.
        payload: the type of the payload. It belongs to this kind alone.
        label: what a person reads in Flower and in the log, such as `credit submitted`.
        service: the service that it calls, a field of `worker.lms.connect.Services`; None if it calls nobody.
        target: `EachOwed`, `InOrder` or `LatestWins`.
        action: where the class is that carries out a try, as `worker.effects.module:Class`.

    Raises:
        ValueError: something is not as it must be; the message names the kind and the field.
    """

    name: str
    queue: str
    payload: type[P]
    label: Callable[[P], str]
    service: StrEnum | None
    target: Target[P]
    action: str

    def __post_init__(self) -> None:
        self._require(_NAME.fullmatch(self.name), "name must be lower case, such as send_status_email")
        self._require(_QUEUE.fullmatch(self.queue), f"queue must begin with {QUEUE_PREFIX}")
        self._require(_is_payload(self.payload), "payload must be a frozen dataclass that inherits Payload")
        self._require(callable(self.label), "label must be a function of the payload")
        self._require(self.service is None or isinstance(self.service, StrEnum), "service must be a Service")
        self._require(
            isinstance(self.target, EachOwed | InOrder | LatestWins),
            "target must be EachOwed, InOrder or LatestWins",
        )
        self._require(_ACTION.fullmatch(self.action), "action must be worker.effects.module:Class")

    def _require(self, met: object, what: str) -> None:
        if not met:
            raise ValueError(f"kind of effect {self.name!r}: {what}")

    def read(self, stored: object) -> P:
        """Make the payload of a stored one. Fields that this release does not know are left out.

        Parameters:
            stored: the payload's JSON, as an older or a newer release may have written it. A field that is null
                counts as missing.

        Raises:
            UnreadablePayloadError: it is no object, a field without a default is missing, or a field has the wrong
                type. The message quotes no values.
        """
        if isinstance(stored, Mapping):
            stored = {name: value for name, value in stored.items() if value is not None}
        try:
            payload: P = _reader(self.payload).validate_python(stored)  # type: ignore[arg-type]  # a class, and so hashable
        except ValidationError as error:
            problem = error.errors(include_url=False, include_context=False, include_input=False)[0]
            raise UnreadablePayloadError(_explain(problem)) from None
        return payload

    def subject(self, payload: P) -> str:
        """What an effect is about, such as `credit submitted · exam 7 · learner 42`."""
        parts = {"exam": payload.exam_id, "learner": payload.user_id}
        about = [f"{name} {quoted(value)}" for name, value in parts.items() if value]
        return " · ".join([self.label(payload), *about])


@cache
def _reader(payload: type[Any]) -> TypeAdapter[Any]:
    return TypeAdapter(payload)


def _explain(problem: Mapping[str, Any]) -> str:
    name = ".".join(map(str, problem["loc"]))
    if problem["type"] == "missing":
        return f"the effect's payload has no {name}"
    return f"the effect's payload cannot be read: {name or 'it'} is of the wrong type"


def check(entries: Iterable[Entry[Any]]) -> None:
    """Make sure that entries go together.

    Raises:
        ValueError: two kinds share a name or a type of payload, or a queue and a service do not belong to each
            other alone. Circuits and limits are kept for each queue, so a queue stands for one service.
    """
    seen: list[Entry[Any]] = []
    for one in entries:
        for other in seen:
            if problem := _conflict(one, other):
                raise ValueError(f"kind of effect {one.name!r}: {problem}")
        seen.append(one)


def _conflict(one: Entry[Any], other: Entry[Any]) -> str | None:
    if one.name == other.name:
        return "another kind has this name"
    if one.payload is other.payload:
        return "another kind has this payload"
    if one.queue == other.queue and one.service != other.service:
        return "its queue is that of another service"
    if one.service is not None and one.service == other.service and one.queue != other.queue:
        return "its service has another queue"
    return None


def quoted(sent: str) -> str:
    """What a sender chose, so that no line of the log and no label can be forged with it."""
    return sent if sent.isprintable() and not set(sent) & set(" ·'\"") else repr(sent)


def _is_payload(found: object) -> bool:
    if not (isinstance(found, type) and issubclass(found, Payload)):
        return False
    # A subclass that is no dataclass itself would have its parent's fields.
    parameters = vars(found).get("__dataclass_params__")
    return parameters is not None and parameters.frozen
