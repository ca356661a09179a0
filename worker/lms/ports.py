"""What an effect asks of the other side, as Protocols. Adapters are in `http`, `smtp` and `log`.

Every method raises `Transient` when another try may help and `Permanent` when it will not. Their messages
carry no personal data and no secrets: they end up in the database and in Flower.
"""

import time
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

from worker.errors import Unavailable

CREDIT_NAMESPACE = "proctored_exam"


@dataclass(frozen=True, slots=True)
class CallKey:
    """What makes a repeated or late call recognisable on the other side.

    `effect_id` is the same on every try; `sequence` grows for each target.
    """

    effect_id: UUID
    sequence: int


@dataclass(frozen=True, slots=True)
class Deadline:
    """The end of one try: of the whole call, not of each read. Make one with `Deadline.after`."""

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
    """One e-mail to one learner. `effect_id` gives its Message-ID, the same on every try."""

    effect_id: UUID
    to_address: str
    subject: str
    text: str
    html: str


class CreditService(Protocol):
    """Keeps what each learner has earned. Setting is state: the newest wins."""

    def set_status(
        self, requirement: CreditRequirement, status: str, key: CallKey, deadline: Deadline
    ) -> None:
        """Set the requirement to `status`: satisfied, submitted or failed."""
        ...

    def remove(self, requirement: CreditRequirement, key: CallKey, deadline: Deadline) -> None:
        """Remove the requirement; one that is not there is fine."""
        ...

    def course_name(self, user_id: str, course_id: str, deadline: Deadline) -> str | None:
        """The name in the learner's credit state, or None when there is no state or no name in it."""
        ...


class InstructorService(Protocol):
    """Keeps the learner's answers."""

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
    """Sends mail."""

    def send(self, mail: Mail, deadline: Deadline) -> None:
        """Hand one mail to a mail server that has then taken responsibility for it."""
        ...
