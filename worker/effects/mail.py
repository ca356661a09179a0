"""Mail: tell the learner what became of the attempt."""

import logging
from collections.abc import Sequence

from db.people import Addressee, Attempted, addressees
from events.vocabulary import Status
from worker.effects.action import Run
from worker.effects.coalescer import Coalescer, one_is_to_blame
from worker.errors import NotCalled, Permanent, ServiceError, Unavailable
from worker.kinds import QUEUES, EffectKind
from worker.lms import mail_text
from worker.lms.ports import Mail

logger = logging.getLogger(__name__)

LMS = QUEUES[EffectKind.SET_CREDIT_STATUS]
"""The queue, and so the circuit, of the service that knows what courses are called."""
QUESTION_SHARE = 0.5
"""Of a try's time, at most, goes into asking for the course's name: the rest is for the mail server."""


class SendStatus:
    """Sends the mail of a status."""

    def __init__(self) -> None:
        self.addressee = Coalescer(_addressees, isolate=one_is_to_blame)

    def __call__(self, run: Run) -> bool:
        """Send it."""
        payload = run.payload
        if payload.status is None:
            raise Permanent("the effect's payload has no status")
        learner = self.addressee(run)
        text = mail_text.render(
            Status(payload.status),
            learner_name=learner.contact.full_name or learner.contact.username,
            exam_name=learner.exam_name,
            course_name=_course_name(run, learner),
        )
        mail = Mail(run.claim.id, learner.contact.email, text.subject, text.text, text.html)
        run.tools.services.mailer.send(mail, run.deadline)
        return False


def _course_name(run: Run, learner: Addressee) -> str | None:
    """The name in the learner's credit state, else the one that we were told; None when there is none.

    Raises:
        NotCalled: the LMS cannot be asked now, and we were told none.
    """
    try:
        return _asked_name(run, learner.may_ask) or learner.course_name
    except ServiceError as error:
        if learner.course_name is None:
            raise NotCalled(str(error)) from None
        logger.info("effect %s names the course as we were told: %s", run.claim.id, error)
        return learner.course_name


def _asked_name(run: Run, may_ask: bool) -> str | None:
    if not may_ask:
        raise Unavailable("the LMS is not asked for the course's name: it does not answer")
    payload, deadline = run.payload, run.deadline.part(QUESTION_SHARE)
    return run.tools.services.credit.course_name(payload.user_id, payload.course_id, deadline)


def _addressees(runs: Sequence[Run]) -> list[Addressee]:
    attempts = [Attempted(run.payload.user_id, run.payload.exam_id, run.payload.course_id) for run in runs]
    with runs[0].tools.engine.connect() as connection:
        found = addressees(connection, attempts, LMS)
    return [found[attempt] for attempt in attempts]
