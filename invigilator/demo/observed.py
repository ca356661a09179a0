"""What the system did with a session: its record, and what arrived on the other side."""

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
    """Take the snapshot. What an earlier session left behind, and this system delivered, is not in it.

    Parameters:
        credit, deletions: what the reference LMS holds.
        mails: what the mail sink took; a Message-ID that comes twice counts once.
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
    """The mails to this session's learners."""
    return [mail for mail in mails if mail.recipient.endswith(f"@{session.mail_domain}")]


def distinct(mails: Iterable[ReceivedMail]) -> list[ReceivedMail]:
    """The mails without further copies of the same Message-ID."""
    return list({mail.message_id: mail for mail in mails}.values())


def _by_kind(effects: Mapping[tuple[str, str], int]) -> Counter[str]:
    counts: Counter[str] = Counter()
    for (kind, _), count in effects.items():
        counts[kind] += count
    return counts
