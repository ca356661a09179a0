"""What an effect asks of the other side, as Protocols. Adapters are in `http`, `smtp` and `log`.

An adapter inherits nothing: it has the methods of its port. tests/integration/lms/test_contract.py runs over each.

Every method raises `Transient` when another try may help and `Permanent` when it will not. Their messages
carry no personal data and no secrets: they end up in the database and in Flower.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol
from uuid import UUID

from worker.errors import Unavailable

CREDIT_NAMESPACE = "proctored_exam"


@dataclass(frozen=True, slots=True)
class Origin:
    """From what a call follows: the command, named by its source and id, and the attempt that it is about.

    `traceparent` is the trace of the try (W3C Trace Context), if it has one.
    """

    source: str
    command_id: str
    attempt_code: str
    traceparent: str | None = None


@dataclass(frozen=True, slots=True)
class CallKey:
    """What makes a repeated or late call recognisable on the other side.

    `effect_id` is the same on every try; `sequence` grows for each target. `origin` is None for a call that follows
    from no command.
    """

    effect_id: UUID
    sequence: int
    origin: Origin | None = None


@dataclass(frozen=True, slots=True)
class Deadline:
    """The end of one try: of the whole call, not of each read. Make one with `Deadline.after`.

    Example:
        >>> deadline = Deadline.after(10)
        >>> 0 < deadline.remaining_s() <= 10
        True
        >>> Deadline.after(0).check("POST /credit")
        Traceback (most recent call last):
        worker.errors.Unavailable: POST /credit took longer than 0 s
    """

    seconds: float
    ends_at: float  # time.monotonic()

    @classmethod
    def after(cls, seconds: float) -> "Deadline":
        """A deadline that many seconds from now."""
        return cls(seconds, time.monotonic() + seconds)

    def remaining_s(self) -> float:
        """Seconds left, never below 0."""
        return max(0.0, self.ends_at - time.monotonic())

    def late(self, what: str) -> Unavailable:
        """The error to raise when the deadline has passed; `what` is what took so long."""
        return Unavailable(f"{what} took longer than {self.seconds:g} s")

    def part(self, share: float) -> "Deadline":
        """A deadline of its own for a part of the try: that share of the time that is left."""
        return Deadline.after(round(self.remaining_s() * share, 1))

    def check(self, what: str) -> None:
        """Do nothing before the deadline.

        Raises:
            Unavailable: it has passed.
        """
        if not self.remaining_s():
            raise self.late(what)


@dataclass(frozen=True, slots=True)
class CreditRequirement:
    """One learner's credit for one exam. `name` is the content id of the exam."""

    user_id: str
    course_id: str
    name: str
    namespace: str = CREDIT_NAMESPACE


@dataclass(frozen=True, slots=True)
class Mail:
    """One e-mail to one learner.

    `effect_id` gives its Message-ID, the same on every try. `traceparent` is the trace of the try, or None.
    """

    effect_id: UUID
    to_address: str
    subject: str
    text: str
    html: str
    traceparent: str | None = None


@dataclass(frozen=True, slots=True)
class Delivery:
    """One event for one webhook.

    Parameters:
        subscriber: such as `webhook.acme`.
        event_id: the same on every try, and in every replay.
        body: the event, as structured JSON.
        traceparent: the trace of the try (W3C Trace Context), or None.
        definition: what the relay has read of the subscriber, or None.
    """

    subscriber: str
    event_id: UUID
    body: bytes
    traceparent: str | None = None
    definition: Mapping[str, Any] | None = None


class CreditService(Protocol):
    """Keeps what each learner has earned. Setting is state: the newest wins.

    Example:
        An adapter that keeps the credit in memory, and drops a call that is older than the last one.

        >>> class InMemory:
        ...     def __init__(self) -> None:
        ...         self.statuses: dict[CreditRequirement, tuple[int, str | None]] = {}
        ...
        ...     def set_status(self, requirement, status, key, deadline) -> None:
        ...         deadline.check("the credit service")
        ...         self._put(requirement, status, key)
        ...
        ...     def remove(self, requirement, key, deadline) -> None:
        ...         self._put(requirement, None, key)
        ...
        ...     def course_name(self, user_id, course_id, origin, deadline) -> str | None:
        ...         return None
        ...
        ...     def _put(self, requirement, status, key) -> None:
        ...         if key.sequence > self.statuses.get(requirement, (0, None))[0]:
        ...             self.statuses[requirement] = key.sequence, status
        >>> credit: CreditService = InMemory()
        >>> requirement = CreditRequirement(user_id="42", course_id="phys", name="block-7")
        >>> credit.set_status(requirement, "satisfied", CallKey(UUID(int=2), 20), Deadline.after(10))
        >>> credit.set_status(requirement, "submitted", CallKey(UUID(int=1), 10), Deadline.after(10))
        >>> credit.statuses[requirement]
        (20, 'satisfied')
    """

    def set_status(
        self, requirement: CreditRequirement, status: str, key: CallKey, deadline: Deadline
    ) -> None:
        """Set the requirement to `status`: satisfied, submitted, failed or declined."""
        ...

    def remove(self, requirement: CreditRequirement, key: CallKey, deadline: Deadline) -> None:
        """Remove the requirement; one that is not there is fine."""
        ...

    def course_name(
        self, user_id: str, course_id: str, origin: Origin | None, deadline: Deadline
    ) -> str | None:
        """The name in the learner's credit state, or None when there is no state or no name in it."""
        ...


class InstructorService(Protocol):
    """Keeps the learner's answers.

    Example:
        >>> from worker import errors
        >>> class Refusing:
        ...     def delete_student_attempt(
        ...         self, username, course_id, content_id, requested_by, key, deadline
        ...     ) -> None:
        ...         raise errors.Refused(f"no such content: {content_id}")  # ids only: the text is stored
        >>> instructor: InstructorService = Refusing()
        >>> instructor.delete_student_attempt(
        ...     "ada", "phys", "block-7", None, CallKey(UUID(int=1), 1), Deadline.after(10)
        ... )
        Traceback (most recent call last):
        worker.errors.Refused: no such content: block-7
    """

    def delete_student_attempt(
        self,
        username: str,
        course_id: str,
        content_id: str,
        requested_by: str | None,
        key: CallKey,
        deadline: Deadline,
    ) -> None:
        """Reset the learner's work on one exam."""
        ...


class Mailer(Protocol):
    """Sends mail.

    Example:
        >>> class Outbox(list):
        ...     def send(self, mail, deadline) -> None:
        ...         self.append((f"<{mail.effect_id}@exams.example>", mail.subject))
        >>> mailer: Mailer = Outbox()
        >>> mail = Mail(UUID(int=7), "ada@example.org", "Mechanics: submitted", "…", "<p>…</p>")
        >>> mailer.send(mail, Deadline.after(10))
        >>> mailer
        [('<00000000-0000-0000-0000-000000000007@exams.example>', 'Mechanics: submitted')]
    """

    def send(self, mail: Mail, deadline: Deadline) -> None:
        """Hand one mail to a mail server that has then taken responsibility for it."""
        ...


class WebhookSender(Protocol):
    """Sends events to endpoints.

    Example:
        >>> class Receiver(list):
        ...     def send(self, delivery, deadline) -> None:
        ...         self.append((delivery.subscriber, delivery.body))
        >>> webhooks: WebhookSender = Receiver()
        >>> webhooks.send(Delivery("webhook.acme", UUID(int=7), b"{}"), Deadline.after(10))
        >>> webhooks
        [('webhook.acme', b'{}')]
    """

    def send(self, delivery: Delivery, deadline: Deadline) -> None:
        """Send one event, and return when the endpoint has taken it. `Gone` when it wants no more."""
        ...
