"""Classifies errors of the database by what to do about them."""

import re
from enum import Enum, auto

import psycopg2
from sqlalchemy.exc import DBAPIError

from events.errors import InvigilatorError


class Failure(Enum):
    """What to do about an error."""

    RETRY = auto()  # two transactions conflicted: run the same again
    CONFLICT = auto()  # most likely as RETRY. If it recurs, this data cannot be written
    UNAVAILABLE = auto()  # the database cannot serve us now: wait
    DATA = auto()  # this data cannot be written
    OTHER = auto()  # the release or the schema is wrong


CHECK_VIOLATION = "23514"

# By prefix of the SQLSTATE, of which the longest counts:
# https://www.postgresql.org/docs/current/errcodes-appendix.html
_FAILURES = {
    "40001": Failure.RETRY,  # serialization failure
    "40P01": Failure.RETRY,  # deadlock
    "55P03": Failure.RETRY,  # lock not available
    "23505": Failure.CONFLICT,  # unique violation
    "57014": Failure.CONFLICT,  # a statement took too long, or a person cancelled it
    "08": Failure.UNAVAILABLE,  # the connection
    "25006": Failure.UNAVAILABLE,  # read-only: a standby, or default_transaction_read_only
    "25P03": Failure.UNAVAILABLE,  # the session was ended because it was idle in a transaction
    "25P04": Failure.UNAVAILABLE,  # the session was ended because its transaction took too long
    "26000": Failure.UNAVAILABLE,  # the session has lost a prepared statement
    "42P05": Failure.UNAVAILABLE,  # the statement is prepared already: a pooler shares the session
    "28": Failure.UNAVAILABLE,  # authentication: a person is changing pg_hba.conf or a password
    "3D000": Failure.UNAVAILABLE,  # no such database: it is being restored
    "42501": Failure.UNAVAILABLE,  # a permission is missing that a person must grant
    "53": Failure.UNAVAILABLE,  # no more disk, memory or connections, or an operator's limit is reached
    "54000": Failure.UNAVAILABLE,  # NOTIFY's queue or the transaction ids are used up; see `_TOO_LARGE`
    "54001": Failure.DATA,  # the data is nested too deeply
    "55000": Failure.UNAVAILABLE,  # the database is in recovery, or allows no connections
    "55006": Failure.UNAVAILABLE,  # the database is in use by a person who works on it
    "57": Failure.UNAVAILABLE,  # the server stops, crashed or starts, or the database was dropped
    "58": Failure.UNAVAILABLE,  # the system: an I/O error, a missing file
    "22": Failure.DATA,  # data exception
    "23": Failure.DATA,  # integrity constraint
}
# PostgreSQL raises 54000 in these source files when a value is too large for a page, an index or the memory.
_TOO_LARGE = ("arrayfuncs.c", "hio.c", "indextuple.c", "jsonb_util.c", "nbtutils.c", "stringinfo.c")

UNFINISHED = "ck_{table}_first"
"""The name of a CHECK: dividing the table was begun and not finished (`db.partitioning`), so later ids are refused
until somebody does."""
_UNFINISHED = re.compile(UNFINISHED.format(table="[a-z]+"))


class UnfitDatabaseError(InvigilatorError):
    """The database cannot be used as it is. The message says what to do."""

    code = "unfit_database"


def classify(error: DBAPIError) -> Failure:
    """What to do about an error, by its SQLSTATE."""
    if error.connection_invalidated:
        return Failure.UNAVAILABLE
    state = sqlstate(error)
    if state is None:
        return Failure.UNAVAILABLE if _is_lost(error) else Failure.DATA
    diagnosis = getattr(error.orig, "diag", None)
    if is_full(error) and getattr(diagnosis, "source_file", None) in _TOO_LARGE:
        return Failure.DATA
    if state == CHECK_VIOLATION and _UNFINISHED.fullmatch(getattr(diagnosis, "constraint_name", None) or ""):
        return Failure.UNAVAILABLE
    known = (state[:length] for length in (5, 2))
    return next((_FAILURES[prefix] for prefix in known if prefix in _FAILURES), Failure.OTHER)


def _is_lost(error: DBAPIError) -> bool:
    # psycopg2 raises a plain DatabaseError when the server's answer broke off or made no sense.
    broken = type(error.orig) is psycopg2.DatabaseError
    return broken or isinstance(error.orig, psycopg2.OperationalError | psycopg2.InterfaceError)


def sqlstate(error: DBAPIError) -> str | None:
    """The error's SQLSTATE. None when no server has answered, or psycopg2 itself refuses."""
    return getattr(error.orig, "pgcode", None)


def is_full(error: DBAPIError) -> bool:
    """Whether a limit of the whole server was reached, perhaps that of NOTIFY's queue."""
    return sqlstate(error) == "54000"


def describe(error: Exception) -> str:
    """An error in a few words that quote no data: its type, and the SQLSTATE and constraint of a database error."""
    cause = getattr(error, "orig", None)
    state = getattr(cause, "pgcode", None)
    constraint = getattr(getattr(cause, "diag", None), "constraint_name", None)
    return " ".join(word for word in (type(error).__name__, state, constraint) if word)


def brief(error: Exception) -> str:
    """An error in one line: the first of its text, because the lines after it may quote statements and data.

    Two things are safe to add. When no host could be reached, the other lines say why for each host. The notes on
    a database error are our own.
    """
    lines = str(error).splitlines() or [type(error).__name__]
    if not isinstance(error, DBAPIError):
        return lines[0]
    more = lines[1:] if error.statement is None and sqlstate(error) is None else []
    hosts = [line for line in more if line.startswith("connection to ")]
    return "; ".join([lines[0], *hosts, *getattr(error.orig, "__notes__", ())])
