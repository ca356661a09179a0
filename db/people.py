"""Names and addresses: read where an effect is run, kept nowhere else."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from sqlalchemy import Connection, Select, Text, select

from db.given import given
from db.models import Exam, Learner


@dataclass(frozen=True, slots=True)
class LearnerContact:
    """How a learner is known and reached. Hidden from `repr`, and so from logs."""

    username: str = field(repr=False)
    email: str = field(repr=False)
    full_name: str | None = field(repr=False)


def learner_contact(connection: Connection, user_id: str) -> LearnerContact:
    """The learner of an attempt; attempts have one for certain.

    Raises:
        sqlalchemy.exc.NoResultFound: no such learner.
    """
    row = connection.execute(
        select(Learner.username, Learner.email, Learner.full_name).where(Learner.user_id == user_id)
    ).one()
    return LearnerContact(row.username, row.email, row.full_name)


@dataclass(frozen=True, slots=True)
class Addressee:
    """A learner, and the name of the exam that a mail is about."""

    contact: LearnerContact
    exam_name: str


def addressees(
    connection: Connection, attempts: Sequence[tuple[str, str]]
) -> dict[tuple[str, str], Addressee]:
    """Whom to write to about attempts, which are (user, exam). An attempt has both for certain."""
    rows = connection.execute(
        _addressees_statement(),
        {
            "attempt_user_id": [user_id for user_id, _ in attempts],
            "attempt_exam_id": [exam_id for _, exam_id in attempts],
        },
    )
    return {
        (row.user_id, row.exam_id): Addressee(
            LearnerContact(row.username, row.email, row.full_name), row.exam_name
        )
        for row in rows
    }


@cache
def _addressees_statement() -> Select[*tuple[Any, ...]]:
    attempt = given("attempt", user_id=Text, exam_id=Text)
    return select(
        Learner.user_id, Learner.username, Learner.email, Learner.full_name, Exam.exam_id, Exam.exam_name
    ).where(Learner.user_id == attempt.c.user_id, Exam.exam_id == attempt.c.exam_id)
