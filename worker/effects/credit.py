"""Credit: tell the credit service what a learner's attempt is worth."""

from worker.effects.action import Recorded, Run
from worker.kind_entry import Payload
from worker.kinds import RemoveCreditStatus, SetCreditStatus
from worker.lms.ports import CreditRequirement


class SetStatus:
    """Sets the credit requirement of (user, course, content) to the status that is owed."""

    def __call__(self, run: Run[SetCreditStatus]) -> Recorded:
        """Call the credit service."""
        credit, payload = run.tools.services.credit, run.payload
        credit.set_status(_requirement(payload), payload.status, run.key, run.deadline)
        return Recorded.BY_RUNNER


class RemoveStatus:
    """Removes the credit requirement of (user, course, content)."""

    def __call__(self, run: Run[RemoveCreditStatus]) -> Recorded:
        """Call the credit service."""
        run.tools.services.credit.remove(_requirement(run.payload), run.key, run.deadline)
        return Recorded.BY_RUNNER


def _requirement(payload: Payload) -> CreditRequirement:
    return CreditRequirement(payload.user_id, payload.course_id, payload.content_id)
