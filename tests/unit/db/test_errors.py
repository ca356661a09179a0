"""The classification of database errors."""

from types import SimpleNamespace

import psycopg2
import pytest
from sqlalchemy.exc import DBAPIError

from db.errors import Failure, brief, classify

DETAIL = "Key (user_id)=(4711) is there"


class RefusedError(Exception):
    """Build an error as psycopg2 raises it. Source file and constraint are PostgreSQL's."""

    def __init__(
        self, pgcode: str | None, source_file: str | None = None, constraint: str | None = None
    ) -> None:
        super().__init__(f"no\nDETAIL: {DETAIL}")
        self.pgcode = pgcode
        self.diag = SimpleNamespace(source_file=source_file, constraint_name=constraint)


def refused(state: str, source_file: str | None = None, constraint: str | None = None) -> DBAPIError:
    return DBAPIError("SELECT 1", {}, RefusedError(state, source_file, constraint))


@pytest.mark.parametrize(
    ("states", "failure"),
    [
        ("40001 40P01 55P03", Failure.RETRY),
        ("23505 57014", Failure.CONFLICT),
        ("08000 08001 08003 08004 08006 08007 08P01", Failure.UNAVAILABLE),
        ("25006 25P03 25P04 26000 42P05 55000 55006", Failure.UNAVAILABLE),
        ("28000 28P01 3D000 42501", Failure.UNAVAILABLE),
        ("53000 53100 53200 53300 53400", Failure.UNAVAILABLE),
        ("54000", Failure.UNAVAILABLE),
        ("57000 57P01 57P02 57P03 57P04 57P05", Failure.UNAVAILABLE),
        ("58000 58030 58P01 58P02 58P03", Failure.UNAVAILABLE),
        ("22001 22021 22P05 23502 23503 23514 54001", Failure.DATA),
        ("0A000 25P02 3F000 42P01 42703 42601 54011 54023 XX000", Failure.OTHER),
    ],
)
def test_a_state_says_what_to_do(states: str, failure: Failure) -> None:
    assert {state: classify(refused(state)) for state in states.split()} == dict.fromkeys(
        states.split(), failure
    )


@pytest.mark.parametrize(
    ("source_file", "failure"),
    [
        ("async.c", Failure.UNAVAILABLE),  # NOTIFY's queue is full
        ("varsup.c", Failure.UNAVAILABLE),  # the ids of transactions have run out
        ("multixact.c", Failure.UNAVAILABLE),
        ("nbtutils.c", Failure.DATA),  # a value is too large for its index
        ("hio.c", Failure.DATA),  # or a row for its page
    ],
)
def test_a_limit_of_the_server_is_waited_for_and_one_of_a_row_is_not(
    source_file: str, failure: Failure
) -> None:
    assert classify(refused("54000", source_file)) is failure


@pytest.mark.parametrize(
    ("state", "constraint", "failure"),
    [
        ("23514", "ck_events_first", Failure.UNAVAILABLE),
        ("23514", "ck_effects_first", Failure.UNAVAILABLE),
        ("23514", "ck_effects_state", Failure.DATA),
        ("23505", "ck_effects_first", Failure.CONFLICT),
    ],
)
def test_what_an_unfinished_dividing_refuses_waits(state: str, constraint: str, failure: Failure) -> None:
    assert classify(refused(state, constraint=constraint)) is failure


@pytest.mark.parametrize(
    ("error", "failure"),
    [
        (psycopg2.OperationalError("could not connect"), Failure.UNAVAILABLE),
        (psycopg2.InterfaceError("connection already closed"), Failure.UNAVAILABLE),
        (psycopg2.DatabaseError("error with status PGRES_TUPLES_OK and no message"), Failure.UNAVAILABLE),
        (psycopg2.ProgrammingError("can't adapt type 'object'"), Failure.DATA),
        (ValueError("A string literal cannot contain NUL (0x00) characters."), Failure.DATA),
    ],
)
def test_without_a_state_the_kind_of_error_says_it(error: Exception, failure: Failure) -> None:
    assert classify(DBAPIError("SELECT 1", {}, error)) is failure


def test_one_line_that_quotes_no_data() -> None:
    assert DETAIL not in brief(refused("23505"))
    # An error at a commit has no statement, but its text may quote a row
    assert DETAIL not in brief(DBAPIError(None, None, RefusedError("23505")))
    assert brief(ValueError("a\nb")) == "a"
    assert brief(ValueError()) == "ValueError"


def test_nobody_could_be_reached_at_any_host() -> None:
    text = (
        'connection to server at "a", port 1 failed: Connection refused\n\tIs the server running?\n'
        'connection to server at "b", port 2 failed: session is read-only\n'
    )
    line = brief(DBAPIError(None, None, psycopg2.OperationalError(text)))
    assert '"a", port 1 failed: Connection refused; connection to server at "b", port 2 failed' in line
    assert "\n" not in line
    assert "\t" not in line
