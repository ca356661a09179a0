"""Names and addresses: read where an effect is run, kept nowhere else."""

from dataclasses import dataclass, field

from sqlalchemy import Connection, select

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


def exam_name(connection: Connection, exam_id: str) -> str:
    """The name of an attempt's exam.

    Raises:
        sqlalchemy.exc.NoResultFound: no such exam.
    """
    return connection.execute(select(Exam.exam_name).where(Exam.exam_id == exam_id)).scalar_one()
