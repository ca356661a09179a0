"""Durations in the notation of people: `90d`, `12h`, `30m`."""

import re
from datetime import timedelta

UNITS = {"d": "days", "h": "hours", "m": "minutes"}
LONGEST = timedelta(days=36_500)


def parse_duration(text: str) -> timedelta:
    """Parse a duration such as `90d`, `12h` or `30m`.

    Raises:
        ValueError: the text is not a duration, or the duration is zero or longer than a hundred years.
    """
    match = re.fullmatch(r"([0-9]{1,9})([dhm])", text)
    duration = timedelta(**{UNITS[match[2]]: int(match[1])}) if match else timedelta()
    if not timedelta() < duration <= LONGEST:
        raise ValueError("must be a number of days, hours or minutes such as 90d, 12h or 30m")
    return duration
