"""Instructor: reset the learner's work on an exam whose attempt was removed."""

from db.connect import looking
from db.people import learner_contact
from worker import kinds
from worker.effects.action import Recorded, Run
from worker.errors import Permanent


class DeleteStudentAttempt:
    """Asks the instructor service to forget the learner's work."""

    def __call__(self, run: Run[kinds.DeleteStudentAttempt]) -> Recorded:
        """Look up the learner's name and call the instructor service."""
        payload = run.payload
        with looking(run.tools.engine) as connection:
            learner = learner_contact(connection, payload.user_id)
        if learner.is_erased:
            # Another user of the LMS may have the name that stands in its place.
            raise Permanent("the learner was erased, and the LMS knows them by their username only")
        run.tools.services.instructor.delete_student_attempt(
            learner.username,
            payload.course_id,
            payload.content_id,
            payload.requested_by,
            run.key,
            run.deadline,
        )
        return Recorded.BY_RUNNER
