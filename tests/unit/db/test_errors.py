"""What an error of the database asks for."""

import pytest
from sqlalchemy.exc import DBAPIError

from db.errors import Failure, classify


class RefusedError(Exception):
    """As psycopg2 raises it."""

    def __init__(self, pgcode: str) -> None:
        self.pgcode = pgcode


@pytest.mark.parametrize(
    ("state", "failure"),
    [
        ("40001", Failure.AGAIN),
        ("55P03", Failure.AGAIN),
        ("23505", Failure.CONFLICT),
        ("57014", Failure.CONFLICT),
        ("57P01", Failure.AWAY),
        ("57P02", Failure.AWAY),
        ("57P03", Failure.AWAY),
        ("53100", Failure.AWAY),
        ("26000", Failure.AWAY),
        ("42P05", Failure.AWAY),
        ("22001", Failure.DATA),
        ("23514", Failure.DATA),
        ("42P01", Failure.OTHER),
        ("XX000", Failure.OTHER),
    ],
)
def test_a_state_says_what_to_do(state: str, failure: Failure) -> None:
    assert classify(DBAPIError("SELECT 1", {}, RefusedError(state))) is failure
