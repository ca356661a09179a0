"""The database's clock, so that the clocks of the processes do not matter."""

from datetime import datetime, timedelta

from sqlalchemy import BigInteger, ColumnElement, cast, func, literal

NOW = func.statement_timestamp()
"""To compare with: unlike clock_timestamp() it is stable, and so may be looked up in an index."""
CLOCK = func.clock_timestamp()
"""To write."""
MICROSECONDS = cast(func.extract("epoch", CLOCK) * 1_000_000, BigInteger)
"""Since 1970: a number that grows as long as nobody sets the clock back. To write."""


def in_seconds(seconds: float) -> ColumnElement[datetime]:
    """The moment so many seconds from now, to write."""
    return CLOCK + literal(timedelta(seconds=seconds))
