"""Builds the snapshot of what the system did with a session: from its database, the LMS and the mail sink."""

from collections import Counter
from collections.abc import Iterable, Mapping

from invigilator.demo.reference import ReceivedMail
from invigilator.demo.session import Session
from invigilator.demo.session_queries import SETTLED, SessionQueries
from invigilator.demo.snapshot import Snapshot
from worker.lms.ports import CREDIT_NAMESPACE

Credit = Mapping[tuple[str, str, str, str], str]
Deletions = Iterable[Mapping[str, str | None]]


def observe(
    session: Session,
    queries: SessionQueries,
    credit: Credit,
    deletions: Deletions,
    mails: Iterable[ReceivedMail],
) -> Snapshot:
    """Build the snapshot. Deliveries for an earlier session are left out.

    Parameters:
        session: the session that was played.
        queries: reads the session's rows of the database.
        credit: the credit that the reference LMS holds.
        deletions: the resets that the reference LMS carried out.
        mails: the mails that the mail sink accepted. Copies with the same Message-ID count once.
    """
    effects = queries.effects()
    return Snapshot(
        credit={
            (user_id, name): status
            for (user_id, course_id, namespace, name), status in credit.items()
            if course_id == session.course_id and namespace == CREDIT_NAMESPACE
        },
        mails=Counter((mail.recipient, mail.subject) for mail in distinct(own_mails(session, mails))),
        deletions=Counter(
            (str(body["username"]), str(body["content_id"]), body["requested_by"])
            for body in deletions
            if body["course_id"] == session.course_id
        ),
        attempts=queries.attempts(),
        histories=queries.histories(),
        outcomes=queries.outcomes(),
        quarantine=queries.quarantine(),
        effects=_by_kind(effects),
        unfinished={
            f"{kind} {state}": count for (kind, state), count in effects.items() if state not in SETTLED
        },
    )


def own_mails(session: Session, mails: Iterable[ReceivedMail]) -> list[ReceivedMail]:
    """Return the mails to this session's learners."""
    return [mail for mail in mails if mail.recipient.endswith(f"@{session.mail_domain}")]


def distinct(mails: Iterable[ReceivedMail]) -> list[ReceivedMail]:
    """Return one mail for each Message-ID."""
    return list({mail.message_id: mail for mail in mails}.values())


def _by_kind(effects: Mapping[tuple[str, str], int]) -> Counter[str]:
    counts: Counter[str] = Counter()
    for (kind, _), count in effects.items():
        counts[kind] += count
    return counts
