"""Mail: tell the learner what became of the attempt."""

from collections.abc import Sequence

from db.people import Addressee, addressees
from events.vocabulary import Status
from worker.effects.grouped import Grouped, one_is_to_blame
from worker.effects.running import Run
from worker.errors import Permanent
from worker.lms import mails
from worker.lms.ports import Mail


class SendStatus:
    """Sends the mail of a status. The course's name comes from the learner's credit state, if there is one."""

    def __init__(self) -> None:
        self._addressee = Grouped(_addressees, apart=one_is_to_blame)

    def __call__(self, run: Run) -> bool:
        """Send it."""
        payload = run.payload
        if payload.status is None:
            raise Permanent("the effect's payload has no status")
        learner = self._addressee(run)
        services = run.tools.services
        text = mails.render(
            Status(payload.status),
            learner_name=learner.contact.full_name or learner.contact.username,
            exam_name=learner.exam_name,
            course_name=services.credit.course_name(payload.user_id, payload.course_id, run.deadline),
        )
        mail = Mail(run.claim.id, learner.contact.email, text.subject, text.text, text.html)
        services.mailer.send(mail, run.deadline)
        return False


def _addressees(runs: Sequence[Run]) -> list[Addressee]:
    attempts = [(run.payload.user_id, run.payload.exam_id) for run in runs]
    with runs[0].tools.engine.connect() as connection:
        found = addressees(connection, attempts)
    return [found[attempt] for attempt in attempts]
