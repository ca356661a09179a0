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


STAFF = "demo-staff"
"""Who requests the removal of attempts."""


@dataclass(frozen=True, slots=True)
class Sitting:
    """Builds the commands about one attempt. As from a well-made LMS, each of them names the attempt.

    Parameters:
        exam_id: the exam's id.
        user_id: the learner's id.
        attempt_code: the code that the LMS has chosen for the attempt.
        external_id: the id that the proctoring vendor has given to the attempt; None for one that is not proctored.
    """

    exam_id: str
    user_id: str
    attempt_code: str
    external_id: str | None

    def create(self) -> CommandData:
        """Create the attempt."""
        return AttemptCreate(
            exam_id=self.exam_id,
            user_id=self.user_id,
            attempt_code=self.attempt_code,
            taking_as_proctored=self.external_id is not None,
            external_id=self.external_id,
        )

    def move(self, to_status: str, *, cascade: bool = True) -> CommandData:
        """Change the attempt's status. The LMS names the attempt by its code."""
        return AttemptUpdateStatus(
            exam_id=self.exam_id,
            user_id=self.user_id,
            attempt_code=self.attempt_code,
            to_status=to_status,
            cascade_effects=cascade,
        )

    def review(self, to_status: Status) -> CommandData:
        """Change the attempt's status, as the vendor asks. The vendor knows only the external id."""
        return AttemptUpdateStatus(
            exam_id=self.exam_id,
            user_id=self.user_id,
            external_id=self.external_id,
            to_status=to_status,
        )

    def remove(self, *, only_from: Status | None = None) -> CommandData:
        """Remove the attempt, requested by the course's staff. With `only_from`, only in that status."""
        return AttemptRemove(
            exam_id=self.exam_id,
            user_id=self.user_id,
            attempt_code=self.attempt_code,
            requested_by=STAFF,
            from_statuses=None if only_from is None else (only_from,),
        )

    def sit(self, *then: str) -> list[CommandData]:
        """Create the attempt, take it through every status to `submitted`, and then through the statuses `then`."""
        steps = (Status.READY_TO_START, Status.STARTED, Status.READY_TO_SUBMIT, Status.SUBMITTED, *then)
        return [self.create(), *map(self.move, steps)]


@dataclass(frozen=True, slots=True)
class Actor:
    """One learner of the session.

    Parameters:
        user_id: the learner's id.
        course_id: the session's course, with which the ids of its exams begin.
    """

    user_id: str
    course_id: str

    def at(self, role: ExamRole, *, again: bool = False) -> Sitting:
        """Return the learner's first attempt at an exam, or the second one. It is proctored if the exam is."""
        code = f"{self.user_id}-{role}-{2 if again else 1}"
        return Sitting(
            exam_id=exam_id(self.course_id, role),
            user_id=self.user_id,
            attempt_code=code,
            external_id=None if role is ExamRole.TIMED else f"vendor-{code}",
        )

    def unnamed_move(
        self, role: ExamRole, to_status: str, *, if_missing: IfMissing = IfMissing.REJECT
    ) -> CommandData:
        """Change the status of whichever attempt is live, as from an LMS that does not name attempts."""
        return AttemptUpdateStatus(
            exam_id=exam_id(self.course_id, role),
            user_id=self.user_id,
            to_status=to_status,
            if_missing=if_missing,
        )

    def remove_declined(self, role: ExamRole) -> CommandData:
        """Remove an attempt that a cascade has created. The LMS knows its status, and not its code."""
        return AttemptRemove(
            exam_id=exam_id(self.course_id, role),
            user_id=self.user_id,
            requested_by=STAFF,
            from_statuses=(Status.DECLINED,),
        )


def exam_id(course_id: str, role: ExamRole) -> str:
    """Return the id of one of the session's exams."""
    return f"{course_id}-{role}"


MIDTERM, FINAL, PRACTICE, TIMED = ExamRole.MIDTERM, ExamRole.FINAL, ExamRole.PRACTICE, ExamRole.TIMED


def _verified(who: Actor) -> list[CommandData]:
    midterm = who.at(MIDTERM)
    return [
        *who.at(PRACTICE).sit(),
        midterm.create(),
        midterm.move(Status.DOWNLOAD_SOFTWARE_CLICKED),
        midterm.move(Status.STARTED),
        midterm.move(Status.SUBMITTED),
        midterm.review(Status.VERIFIED),
    ]


def _verified_on_second_look(who: Actor) -> list[CommandData]:
    return who.at(FINAL).sit(Status.SECOND_REVIEW_REQUIRED, Status.VERIFIED)


def _rejected(who: Actor) -> list[CommandData]:
    # The cascade declines the final, which has just begun.
    return [who.at(FINAL).create(), *who.at(MIDTERM).sit(Status.REJECTED)]


def _verdict_changed(who: Actor) -> list[CommandData]:
    return who.at(MIDTERM).sit(Status.VERIFIED, Status.REJECTED, Status.VERIFIED)


def _not_reviewed(who: Actor) -> list[CommandData]:
    return who.at(FINAL).sit(Status.NOT_REVIEWED)


def _declined(who: Actor) -> list[CommandData]:
    return [who.at(MIDTERM).create(), who.at(MIDTERM).move(Status.DECLINED)]


def _declined_and_too_late(who: Actor) -> list[CommandData]:
    # The cascade counts before the learner's next command, even if its task has not run yet. So there is an attempt
    # at the final already. It is not the one that the LMS names.
    return [*_declined(who), who.at(FINAL).create(), who.at(FINAL).move(Status.STARTED)]


def _declined_and_reviewed(who: Actor) -> list[CommandData]:
    # The decline has cleared the external id. The attempt is still known by it.
    return [*_declined(who), who.at(MIDTERM).review(Status.ERROR)]  # illegal


def _declined_alone(who: Actor) -> list[CommandData]:
    midterm = who.at(MIDTERM)
    return [
        midterm.create(),
        midterm.move(Status.DECLINED, cascade=False),
        *who.at(FINAL).sit(Status.VERIFIED),
    ]


def _declined_by_mistake(who: Actor) -> list[CommandData]:
    return [
        *_declined(who),
        who.remove_declined(FINAL),
        who.at(MIDTERM).remove(),
        *who.at(FINAL).sit(Status.VERIFIED),
    ]


def _timed_declined(who: Actor) -> list[CommandData]:
    # An exam that is not proctored may start a cascade, too. The midterm was submitted before, so it stays.
    return [*who.at(MIDTERM).sit(), who.at(TIMED).create(), who.at(TIMED).move(Status.DECLINED)]


def _timed(who: Actor) -> list[CommandData]:
    return who.at(TIMED).sit()


def _time_ran_out(who: Actor) -> list[CommandData]:
    timed = who.at(TIMED)
    return [timed.create(), timed.move(Status.STARTED), timed.move(Status.TIMED_OUT)]


def _never_started(who: Actor) -> list[CommandData]:
    return [who.at(FINAL).create(), who.at(FINAL).move(Status.TIMED_OUT)]


def _late_time_out(who: Actor) -> list[CommandData]:
    return who.at(MIDTERM).sit(Status.VERIFIED, Status.TIMED_OUT)


def _retake(who: Actor) -> list[CommandData]:
    first, second = who.at(MIDTERM), who.at(MIDTERM, again=True)
    return [
        first.create(),
        first.move(Status.STARTED),
        first.move(Status.ERROR),
        first.move(Status.ERROR),  # illegal
        first.remove(),
        *second.sit(Status.VERIFIED),
    ]


def _verdict_for_a_removed_attempt(who: Actor) -> list[CommandData]:
    # Both verdicts name the first attempt, so they do not touch the second.
    first, second = who.at(MIDTERM), who.at(MIDTERM, again=True)
    return [
        *first.sit(),
        first.remove(),
        first.create(),  # no code is used twice
        second.create(),
        first.review(Status.REJECTED),
        first.move(Status.VERIFIED),
        second.move(Status.STARTED),
    ]


def _removed(who: Actor) -> list[CommandData]:
    midterm = who.at(MIDTERM)
    return [*midterm.sit(Status.SECOND_REVIEW_REQUIRED), midterm.remove(), midterm.remove()]


def _removed_before_the_start(who: Actor) -> list[CommandData]:
    final = who.at(FINAL)
    return [final.create(), final.remove(only_from=Status.ERROR), final.remove(only_from=Status.CREATED)]


def _reopened(who: Actor) -> list[CommandData]:
    return who.at(MIDTERM).sit(Status.VERIFIED, Status.STARTED, Status.ERROR)  # both illegal


def _impatient(who: Actor) -> list[CommandData]:
    return [who.at(FINAL).create(), *who.at(FINAL).sit(Status.SUBMITTED)]  # once too often, each


def _confused(who: Actor) -> list[CommandData]:
    nowhere, timed = who.at(ExamRole.UNKNOWN), who.at(TIMED)
    return [
        who.unnamed_move(MIDTERM, Status.STARTED),
        who.unnamed_move(MIDTERM, Status.SUBMITTED, if_missing=IfMissing.IGNORE),
        nowhere.create(),
        nowhere.move(Status.STARTED),
        timed.create(),
        timed.move("verifed"),
        timed.move(""),
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
            _declined_and_reviewed,
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
