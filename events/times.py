"""Times as text: RFC 3339, with an offset from UTC."""

import re
from datetime import UTC, datetime

# The seconds may be 60, in a leap second. The patterns are those of the JSON Schemas, too.
PATTERN = (
    r"^[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])[Tt]([01][0-9]|2[0-3]):[0-5][0-9]:([0-5][0-9]|60)(\.[0-9]+)?"
    r"([Zz]|[+-]([01][0-9]|2[0-3]):[0-5][0-9])$"
)
"""The form of a time."""

_COMMON_YEAR = "([0-9][13579]|[02468][26]|[13579][048])"  # two digits that four does not divide
NO_SUCH_TIME = (
    "^0000",
    "^.{5}(0[469]|11)-31",
    "^.{5}02-3",
    f"^([0-9]{{2}}{_COMMON_YEAR}|{_COMMON_YEAR}00)-02-29",
    # No datetime can hold these in UTC, or some that are close to them.
    r"^0001-01-01.*\+.*[1-9]",
    "^9999-12-31.*-.*[1-9]",
)
"""What has the form of a time and is none."""

_form = re.compile(PATTERN)
_no_such_time = re.compile("|".join(NO_SUCH_TIME))


def parse_time(text: str) -> datetime:
    """Read a time. A leap second becomes the second before it, because no datetime can hold it.

    Parameters:
        text: such as `2026-03-01T09:00:00Z`.

    Returns:
        the time in UTC.

    Raises:
        ValueError: it is no time. The text does not quote it.

    Example:
        >>> parse_time("2026-03-01T10:00:00+01:00")
        datetime.datetime(2026, 3, 1, 9, 0, tzinfo=datetime.timezone.utc)
    """
    if not _form.fullmatch(text):
        raise ValueError("must be a time such as 2026-03-01T09:00:00Z")
    if _no_such_time.search(text):
        raise ValueError("there is no such time")
    if text[17:19] == "60":
        text = f"{text[:17]}59{text[19:]}"
    return datetime.fromisoformat(text.upper()).astimezone(UTC)


def render_time(time: datetime) -> str:
    """Write a time in UTC, with a Z.

    Raises:
        ValueError: it has no offset from UTC.
    """
    if time.utcoffset() is None:
        raise ValueError("must have an offset from UTC")
    return time.astimezone(UTC).isoformat().replace("+00:00", "Z")
