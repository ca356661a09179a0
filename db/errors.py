"""What an error of the database asks for."""

from enum import Enum, auto

import psycopg2
from sqlalchemy.exc import DBAPIError


class Failure(Enum):
    """What to do about an error."""

    AGAIN = auto()  # two transactions were in each other's way: run the same again
    CONFLICT = auto()  # most likely the same; when it stays, this very data cannot be written
    AWAY = auto()  # the database cannot serve us now: wait
    DATA = auto()  # this very data cannot be written
    OTHER = auto()  # the release or the schema is wrong


# SQLSTATE, https://www.postgresql.org/docs/current/errcodes-appendix.html
_AGAIN = ("40001", "40P01", "55P03")  # serialization, deadlock, lock not available
# Unique violation; a statement that took too long, or that a person has cancelled: run it again.
_CONFLICT = ("23505", "57014")
# Connection, resources, operator, system, read-only (a standby); a session that lost what was prepared in it.
_AWAY = ("08", "53", "57", "58", "25006", "26000", "42P05")
_DATA = ("22", "23")  # data exception, integrity constraint
_FAILURES = (
    (_AGAIN, Failure.AGAIN),
    (_CONFLICT, Failure.CONFLICT),
    (_AWAY, Failure.AWAY),
    (_DATA, Failure.DATA),
)


def classify(error: DBAPIError) -> Failure:
    """What an error asks for, by its SQLSTATE."""
    if error.connection_invalidated:
        return Failure.AWAY
    state = getattr(error.orig, "pgcode", None)
    if state is None:
        lost = isinstance(error.orig, psycopg2.OperationalError | psycopg2.InterfaceError)
        return Failure.AWAY if lost else Failure.DATA
    return next((failure for prefixes, failure in _FAILURES if state.startswith(prefixes)), Failure.OTHER)


def describe(error: Exception) -> str:
    """An error in a few words that quote no data: its type and, of a database error, state and constraint."""
    cause = getattr(error, "orig", None)
    state = getattr(cause, "pgcode", None)
    constraint = getattr(getattr(cause, "diag", None), "constraint_name", None)
    return " ".join(word for word in (type(error).__name__, state, constraint) if word)


def brief(error: Exception) -> str:
    """The first line of an error's text: the lines after it may quote statements and data."""
    return (str(error).splitlines() or [type(error).__name__])[0]
