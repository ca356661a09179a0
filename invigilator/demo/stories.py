"""The stories of the demo: what one learner does in the exam session, from ordinary cases to an LMS's mistakes."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

from events.commands import AttemptCreate, AttemptRemove, AttemptUpdateStatus, CommandData
from events.vocabulary import IfMissing, Status


class ExamRole(StrEnum):
    """The four exams of the session's course, and one that does not exist. The value is the exam's content id."""

    MIDTERM = "midterm"  # proctored
    FINAL = "final"  # proctored
    PRACTICE = "practice"  # proctored, for practice: its attempts are sample attempts
    TIMED = "timed"  # not proctored, with a time limit
    UNKNOWN = "unknown"  # never announced, so every command for it is rejected


@dataclass(frozen=True, slots=True)
class Actor:
    """Builds the commands of one learner.

    Parameters:
        user_id: the learner's id.
        course_id: the session's course, with which the ids of its exams begin.
    """

    user_id: str
    course_id: str

    def create(self, role: ExamRole, *, proctored: bool = True, code: str | None = None) -> CommandData:
        """Create an attempt. A proctored one gets an external id, as the proctoring vendor would give it."""
        return AttemptCreate(
            exam_id=exam_id(self.course_id, role),
            user_id=self.user_id,
            attempt_code=code,
            taking_as_proctored=proctored,
            external_id=f"vendor-{self.user_id}-{role}" if proctored else None,
        )

    def move(
        self, role: ExamRole, to_status: str, *, cascade: bool = True, code: str | None = None
    ) -> CommandData:
        """Change the status of an attempt. Its code, if there is one, says which attempt is meant."""
        return AttemptUpdateStatus(
            exam_id=exam_id(self.course_id, role),
            user_id=self.user_id,
            to_status=to_status,
            attempt_code=code,
            cascade_effects=cascade,
        )

    def move_if_there(self, role: ExamRole, to_status: str) -> CommandData:
        """Change the status of an attempt that may not exist (`if_missing` is `ignore`)."""
        return AttemptUpdateStatus(
            exam_id=exam_id(self.course_id, role),
            user_id=self.user_id,
            to_status=to_status,
            if_missing=IfMissing.IGNORE,
        )

    def remove(self, role: ExamRole, *, only_from: Status | None = None) -> CommandData:
        """Remove an attempt, requested by the course's staff. With `only_from`, only in that status."""
        return AttemptRemove(
            exam_id=exam_id(self.course_id, role),
            user_id=self.user_id,
            requested_by="demo-staff",
            from_statuses=None if only_from is None else (only_from,),
        )

    def sit(self, role: ExamRole, *then: str, proctored: bool = True) -> list[CommandData]:
        """Create an attempt, take it through every status to `submitted`, and then through the statuses `then`."""
        steps = (Status.READY_TO_START, Status.STARTED, Status.READY_TO_SUBMIT, Status.SUBMITTED, *then)
        return [
            self.create(role, proctored=proctored),
            *(self.move(role, status) for status in steps),
        ]


def exam_id(course_id: str, role: ExamRole) -> str:
    """Return the id of one of the session's exams."""
    return f"{course_id}-{role}"


MIDTERM, FINAL, PRACTICE, TIMED = ExamRole.MIDTERM, ExamRole.FINAL, ExamRole.PRACTICE, ExamRole.TIMED


def _verified(who: Actor) -> list[CommandData]:
    return [
        *who.sit(PRACTICE),
        who.create(MIDTERM),
        who.move(MIDTERM, Status.DOWNLOAD_SOFTWARE_CLICKED),
        who.move(MIDTERM, Status.STARTED),
        who.move(MIDTERM, Status.SUBMITTED),
        who.move(MIDTERM, Status.VERIFIED),
    ]


def _verified_on_second_look(who: Actor) -> list[CommandData]:
    return who.sit(FINAL, Status.SECOND_REVIEW_REQUIRED, Status.VERIFIED)


def _rejected(who: Actor) -> list[CommandData]:
    # The cascade declines the final, which has just begun.
    return [who.create(FINAL), *who.sit(MIDTERM, Status.REJECTED)]


def _verdict_changed(who: Actor) -> list[CommandData]:
    return who.sit(MIDTERM, Status.VERIFIED, Status.REJECTED, Status.VERIFIED)


def _not_reviewed(who: Actor) -> list[CommandData]:
    return who.sit(FINAL, Status.NOT_REVIEWED)


def _declined(who: Actor) -> list[CommandData]:
    return [who.create(MIDTERM), who.move(MIDTERM, Status.DECLINED)]


def _declined_and_too_late(who: Actor) -> list[CommandData]:
    # The cascade counts before the learner's next command, even if its task has not run yet.
    return [*_declined(who), who.create(FINAL), who.move(FINAL, Status.STARTED)]


def _declined_alone(who: Actor) -> list[CommandData]:
    return [
        who.create(MIDTERM),
        who.move(MIDTERM, Status.DECLINED, cascade=False),
        *who.sit(FINAL, Status.VERIFIED),
    ]


def _declined_by_mistake(who: Actor) -> list[CommandData]:
    return [*_declined(who), who.remove(FINAL), who.remove(MIDTERM), *who.sit(FINAL, Status.VERIFIED)]


def _timed_declined(who: Actor) -> list[CommandData]:
    # An exam that is not proctored may start a cascade, too. The midterm was submitted before, so it stays.
    return [
        *who.sit(MIDTERM),
        who.create(TIMED, proctored=False),
        who.move(TIMED, Status.DECLINED),
    ]


def _timed(who: Actor) -> list[CommandData]:
    return who.sit(TIMED, proctored=False)


def _time_ran_out(who: Actor) -> list[CommandData]:
    return [
        who.create(TIMED, proctored=False),
        who.move(TIMED, Status.STARTED),
        who.move(TIMED, Status.TIMED_OUT),
    ]


def _never_started(who: Actor) -> list[CommandData]:
    return [who.create(FINAL), who.move(FINAL, Status.TIMED_OUT)]


def _late_time_out(who: Actor) -> list[CommandData]:
    return who.sit(MIDTERM, Status.VERIFIED, Status.TIMED_OUT)


def _retake(who: Actor) -> list[CommandData]:
    return [
        who.create(MIDTERM),
        who.move(MIDTERM, Status.STARTED),
        who.move(MIDTERM, Status.ERROR),
        who.move(MIDTERM, Status.ERROR),  # illegal
        who.remove(MIDTERM),
        *who.sit(MIDTERM, Status.VERIFIED),
    ]


def _verdict_for_a_removed_attempt(who: Actor) -> list[CommandData]:
    # The verdict names the first attempt, so it does not touch the second.
    first, second = (f"{who.course_id}-{who.user_id}-{number}" for number in (1, 2))
    return [
        who.create(MIDTERM, code=first),
        who.move(MIDTERM, Status.STARTED, code=first),
        who.move(MIDTERM, Status.SUBMITTED, code=first),
        who.remove(MIDTERM),
        who.create(MIDTERM, code=second),
        who.move(MIDTERM, Status.VERIFIED, code=first),
        who.create(FINAL, code=first),  # no code is used twice
    ]


def _removed(who: Actor) -> list[CommandData]:
    return [*who.sit(MIDTERM, Status.SECOND_REVIEW_REQUIRED), who.remove(MIDTERM), who.remove(MIDTERM)]


def _removed_before_the_start(who: Actor) -> list[CommandData]:
    return [who.create(FINAL), who.remove(FINAL, only_from=Status.ERROR), who.remove(FINAL)]


def _reopened(who: Actor) -> list[CommandData]:
    return who.sit(MIDTERM, Status.VERIFIED, Status.STARTED, Status.ERROR)  # both illegal


def _impatient(who: Actor) -> list[CommandData]:
    return [who.create(FINAL), *who.sit(FINAL, Status.SUBMITTED)]  # once too often, each


def _confused(who: Actor) -> list[CommandData]:
    return [
        who.move(MIDTERM, Status.STARTED),
        who.move_if_there(MIDTERM, Status.SUBMITTED),
        who.create(ExamRole.UNKNOWN),
        who.move(ExamRole.UNKNOWN, Status.STARTED),
        who.create(TIMED, proctored=False),
        who.move(TIMED, "verifed"),
        who.move(TIMED, ""),
    ]


STORIES: Mapping[str, Callable[[Actor], list[CommandData]]] = MappingProxyType(
    {
        story.__name__.lstrip("_"): story
        for story in (
            _verified,
            _verified_on_second_look,
            _rejected,
            _verdict_changed,
            _not_reviewed,
            _declined,
            _declined_and_too_late,
            _declined_alone,
            _declined_by_mistake,
            _timed_declined,
            _timed,
            _time_ran_out,
            _never_started,
            _late_time_out,
            _retake,
            _verdict_for_a_removed_attempt,
            _removed,
            _removed_before_the_start,
            _reopened,
            _impatient,
            _confused,
        )
    }
)
"""All stories by name."""
