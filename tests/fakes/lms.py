"""One fake for each port of `worker.lms.ports`: records its calls and fails when told to."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from worker.errors import ServiceError
from worker.lms.ports import CallKey, CreditRequirement, Deadline, Delivery, Mail, Origin


@dataclass(frozen=True)
class FakeCall:
    """One call that was made: the method, what it was given, and its key where it has one."""

    method: str
    args: Mapping[str, Any]
    key: CallKey | None = None


@dataclass
class _Fake:
    calls: list[FakeCall] = field(default_factory=list)  # those that failed included
    _failures: list[ServiceError] = field(default_factory=list)

    def fail_with(self, *failures: ServiceError) -> None:
        """Raise these, in order, from the next calls; afterwards succeed again."""
        self._failures.extend(failures)

    def _called(self, call: FakeCall, deadline: Deadline) -> None:
        self.calls.append(call)
        if self._failures:
            raise self._failures.pop(0)
        deadline.check(f"fake {call.method}")


@dataclass
class FakeCredit(_Fake):
    """A credit service: `statuses` is what it holds, `course_names` what it knows, by course id."""

    statuses: dict[CreditRequirement, str] = field(default_factory=dict)
    course_names: dict[str, str] = field(default_factory=dict)

    def set_status(
        self, requirement: CreditRequirement, status: str, key: CallKey, deadline: Deadline
    ) -> None:
        self._called(FakeCall("set_status", {"requirement": requirement, "status": status}, key), deadline)
        self.statuses[requirement] = status

    def remove(self, requirement: CreditRequirement, key: CallKey, deadline: Deadline) -> None:
        self._called(FakeCall("remove", {"requirement": requirement}, key), deadline)
        self.statuses.pop(requirement, None)

    def course_name(
        self, user_id: str, course_id: str, origin: Origin | None, deadline: Deadline
    ) -> str | None:
        asked = {"user_id": user_id, "course_id": course_id, "origin": origin}
        self._called(FakeCall("course_name", asked), deadline)
        return self.course_names.get(course_id)


@dataclass
class FakeInstructor(_Fake):
    """An instructor service."""

    def delete_student_attempt(
        self,
        username: str,
        course_id: str,
        content_id: str,
        requested_by: str | None,
        key: CallKey,
        deadline: Deadline,
    ) -> None:
        args = {
            "username": username,
            "course_id": course_id,
            "content_id": content_id,
            "requested_by": requested_by,
        }
        self._called(FakeCall("delete_student_attempt", args, key), deadline)


@dataclass
class FakeMailer(_Fake):
    """A mailer: `sent` is what it has taken."""

    sent: list[Mail] = field(default_factory=list)

    def send(self, mail: Mail, deadline: Deadline) -> None:
        self._called(FakeCall("send", {"mail": mail}), deadline)
        self.sent.append(mail)


@dataclass
class FakeWebhooks(_Fake):
    """Every endpoint. `deliveries` are those that were taken, in order."""

    deliveries: list[Delivery] = field(default_factory=list)

    def send(self, delivery: Delivery, deadline: Deadline) -> None:
        self._called(FakeCall("send", {"subscriber": delivery.subscriber}), deadline)
        self.deliveries.append(delivery)
