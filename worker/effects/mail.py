"""Mail: tell the learner what became of the attempt."""

from db.people import exam_name, learner_contact
from events.vocabulary import Status
from worker.effects.running import Run
from worker.errors import Permanent
from worker.lms import mails
from worker.lms.ports import Mail


def send_status(run: Run) -> bool:
    """Send the mail of a status. The course's name comes from the learner's credit state, if there is one."""
    payload = run.payload
    if payload.status is None:
        raise Permanent("the effect's payload has no status")
    with run.tools.engine.connect() as connection:
        learner = learner_contact(connection, payload.user_id)
        exam = exam_name(connection, payload.exam_id)
    services = run.tools.services
    text = mails.render(
        Status(payload.status),
        learner_name=learner.full_name or learner.username,
        exam_name=exam,
        course_name=services.credit.course_name(payload.user_id, payload.course_id, run.deadline),
    )
    mail = Mail(run.claim.id, learner.email, text.subject, text.text, text.html)
    services.mailer.send(mail, run.deadline)
    return False
