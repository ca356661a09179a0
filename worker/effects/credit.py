"""Credit: tell the credit service what a learner's attempt is worth."""

from worker.effects.action import Run
from worker.errors import Permanent
from worker.kinds import Payload
from worker.lms.ports import CreditRequirement


def set_status(run: Run) -> bool:
    """Set the credit requirement of (user, course, content) to the status that was owed."""
    if run.payload.status is None:
        raise Permanent("the effect's payload has no status")
    run.tools.services.credit.set_status(_requirement(run.payload), run.payload.status, run.key, run.deadline)
    return False


def remove_status(run: Run) -> bool:
    """Remove the credit requirement of (user, course, content)."""
    run.tools.services.credit.remove(_requirement(run.payload), run.key, run.deadline)
    return False


def _requirement(payload: Payload) -> CreditRequirement:
    return CreditRequirement(payload.user_id, payload.course_id, payload.content_id)
