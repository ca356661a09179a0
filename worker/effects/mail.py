"""Mail: tell the learner what became of the attempt."""

from collections.abc import Sequence

from db.connect import looking
from db.people import Addressee, MailOwed, addressees
from events.vocabulary import Status
from worker.effects.action import Recorded, Run
from worker.effects.coalescer import Coalescer, one_is_to_blame
from worker.errors import NotCalled, Permanent, ServiceError, Unavailable
from worker.kinds import EffectKind, SendStatusEmail
from worker.lms.mail_templates import MailFacts
from worker.lms.ports import Mail
from worker.logs import get_logger

logger = get_logger(__name__)

MailRun = Run[SendStatusEmail]

LMS = EffectKind.SET_CREDIT_STATUS.entry.queue
"""The queue, and so the circuit, of the service that knows the names of courses."""
QUESTION_SHARE = 0.5
"""The share of a try's time that the question for the course's name may take. The rest is for the mail server."""


class SendStatus:
    """Sends the mail of a status. Mails that are due at the same time look up their addressees together."""

    def __init__(self) -> None:
        self.addressee = Coalescer(_addressees, isolate=one_is_to_blame)

    def __call__(self, run: MailRun) -> Recorded:
        """Look up the learner, ask for the course's name, and hand the mail to the mail server."""
        learner = self.addressee(run)
        if learner.contact.is_erased:
            raise Permanent("the learner was erased, so there is no address")
        text = run.tools.mail_templates.render(_facts(run, learner))
        mail = Mail(
            run.claim.id, learner.contact.email, text.subject, text.text, text.html, run.claim.traceparent
        )
        run.tools.services.mailer.send(mail, run.deadline)
        return Recorded.BY_RUNNER


def _facts(run: MailRun, learner: Addressee) -> MailFacts:
    return MailFacts(
        status=Status(run.payload.status),
        at=learner.at,
        learner_name=learner.contact.full_name or learner.contact.username,
        exam_name=learner.exam_name,
        course_id=run.payload.course_id,
        course_name=_course_name(run, learner),
        gives_credit=learner.gives_credit,
        provider=learner.provider,
        settings=run.tools.handler.policies.of(learner.provider).mail,
        language=learner.language,
        time_zone=learner.time_zone,
    )


def _course_name(run: MailRun, learner: Addressee) -> str | None:
    """The name in the learner's credit state, else the one that we were told; None when there is none.

    Raises:
        NotCalled: the LMS cannot be asked now, and we were told none.
    """
    try:
        return _asked_name(run, learner.may_ask) or learner.course_name
    except ServiceError as error:
        if learner.course_name is None:
            raise NotCalled(str(error), status=error.status, reason=error.reason) from None
        logger.info("the course is named as we were told", effect=run.claim.id, reason=str(error))
        return learner.course_name


def _asked_name(run: MailRun, may_ask: bool) -> str | None:
    if not may_ask:
        raise Unavailable("the LMS is not asked for the course's name: it does not answer")
    payload, deadline = run.payload, run.deadline.part(QUESTION_SHARE)
    return run.tools.services.credit.course_name(payload.user_id, payload.course_id, run.origin, deadline)


def _addressees(runs: Sequence[MailRun]) -> list[Addressee]:
    mails = [
        MailOwed(run.claim.id, run.payload.user_id, run.payload.exam_id, run.payload.course_id)
        for run in runs
    ]
    with looking(runs[0].tools.engine) as connection:
        found = addressees(connection, mails, LMS)
    return [found[mail.effect_id] for mail in mails]
