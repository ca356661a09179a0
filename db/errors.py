"""What an error of the database asks for."""

from enum import Enum, auto

import psycopg2
from sqlalchemy.exc import DBAPIError

from events.errors import InvigilatorError


class Failure(Enum):
    """What to do about an error."""

    RETRY = auto()  # two transactions were in each other's way: run the same again
    CONFLICT = auto()  # most likely the same; when it stays, this very data cannot be written
    UNAVAILABLE = auto()  # the database cannot serve us now: wait
    DATA = auto()  # this very data cannot be written
    OTHER = auto()  # the release or the schema is wrong


# SQLSTATE, https://www.postgresql.org/docs/current/errcodes-appendix.html, by prefix; the longest counts.
_FAILURES = {
    "40001": Failure.RETRY,  # serialization failure
    "40P01": Failure.RETRY,  # deadlock
    "55P03": Failure.RETRY,  # lock not available
    "23505": Failure.CONFLICT,  # unique violation
    "57014": Failure.CONFLICT,  # a statement took too long, or a person has cancelled it
    "08": Failure.UNAVAILABLE,  # the connection
    "25006": Failure.UNAVAILABLE,  # read-only: a standby, or default_transaction_read_only
    "25P03": Failure.UNAVAILABLE,  # the session was ended because it stood still in a transaction
    "25P04": Failure.UNAVAILABLE,  # or because the transaction took too long
    "26000": Failure.UNAVAILABLE,  # the session lost what was prepared in it,
    "42P05": Failure.UNAVAILABLE,  # or is somebody else's: a pooler
    "28": Failure.UNAVAILABLE,  # authentication: a person changes pg_hba.conf, or a password
    "3D000": Failure.UNAVAILABLE,  # no such database: it is being restored
    "42501": Failure.UNAVAILABLE,  # a person has to grant something
    "53": Failure.UNAVAILABLE,  # disk, memory, connections, or a limit that an operator has set
    "54000": Failure.UNAVAILABLE,  # NOTIFY's queue, the ids of transactions; but see `_TOO_LARGE`
    "54001": Failure.DATA,  # nested too deeply
    "55000": Failure.UNAVAILABLE,  # not in the state for it: recovery, or no connections are allowed
    "55006": Failure.UNAVAILABLE,  # in use by a person who works on the database
    "57": Failure.UNAVAILABLE,  # an operator: shutdown, crash, start, a dropped database, an idle session
    "58": Failure.UNAVAILABLE,  # the system: input and output, a file that is missing
    "22": Failure.DATA,  # data exception
    "23": Failure.DATA,  # integrity constraint
}
# Where in PostgreSQL's source 54000 comes from when a value is too large for a page, an index or the memory.
_TOO_LARGE = ("arrayfuncs.c", "hio.c", "indextuple.c", "jsonb_util.c", "nbtutils.c", "stringinfo.c")


class UnfitDatabaseError(InvigilatorError):
    """The database cannot be used as it is; the message says what to do."""

    code = "unfit_database"


def classify(error: DBAPIError) -> Failure:
    """What an error asks for, by its SQLSTATE."""
    if error.connection_invalidated:
        return Failure.UNAVAILABLE
    state = sqlstate(error)
    if state is None:
        return Failure.UNAVAILABLE if _is_lost(error) else Failure.DATA
    if is_full(error) and getattr(getattr(error.orig, "diag", None), "source_file", None) in _TOO_LARGE:
        return Failure.DATA
    known = (state[:length] for length in (5, 2))
    return next((_FAILURES[prefix] for prefix in known if prefix in _FAILURES), Failure.OTHER)


def _is_lost(error: DBAPIError) -> bool:
    # psycopg2's plain DatabaseError: the server's answer broke off, or made no sense.
    broken = type(error.orig) is psycopg2.DatabaseError
    return broken or isinstance(error.orig, psycopg2.OperationalError | psycopg2.InterfaceError)


def sqlstate(error: DBAPIError) -> str | None:
    """The error's SQLSTATE; none when no server has answered, or psycopg2 refuses to ask."""
    return getattr(error.orig, "pgcode", None)


def is_full(error: DBAPIError) -> bool:
    """Whether a limit was reached that the database does not share out: perhaps that of NOTIFY's queue."""
    return sqlstate(error) == "54000"


def describe(error: Exception) -> str:
    """An error in a few words that quote no data: its type and, of a database error, state and constraint."""
    cause = getattr(error, "orig", None)
    state = getattr(cause, "pgcode", None)
    constraint = getattr(getattr(cause, "diag", None), "constraint_name", None)
    return " ".join(word for word in (type(error).__name__, state, constraint) if word)


def brief(error: Exception) -> str:
    """An error in one line: the first of its text, because those after it may quote statements and data.

    When nobody could be reached there is no statement, and the other lines say why the other hosts were none; and
    notes on a database's error are ours.
    """
    lines = str(error).splitlines() or [type(error).__name__]
    if not isinstance(error, DBAPIError):
        return lines[0]
    more = lines[1:] if error.statement is None and sqlstate(error) is None else []
    hosts = [line for line in more if line.startswith("connection to ")]
    return "; ".join([lines[0], *hosts, *getattr(error.orig, "__notes__", ())])
