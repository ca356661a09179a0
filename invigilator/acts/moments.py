"""Moments as people and programs write them. PostgreSQL takes no offset of 16 hours, so all become UTC."""

from datetime import UTC, datetime


def moment(text: str) -> datetime:
    """Return a time that is written with its offset, in UTC.

    Raises:
        ValueError: it is no time, has no offset, or cannot be held in UTC.

    Example:
        >>> moment("2026-03-01T10:00:00+01:00")
        datetime.datetime(2026, 3, 1, 9, 0, tzinfo=datetime.timezone.utc)
    """
    time = datetime.fromisoformat(text)
    if time.utcoffset() is None:
        raise ValueError("has no offset from UTC")
    return _in_utc(time)


def moment_or_utc(text: str) -> datetime:
    """Return a time as people type it, in UTC. Without an offset it is in UTC.

    Raises:
        ValueError: it is no time, or cannot be held in UTC.
    """
    time = datetime.fromisoformat(text)
    return time.replace(tzinfo=UTC) if time.utcoffset() is None else _in_utc(time)


def _in_utc(time: datetime) -> datetime:
    try:
        return time.astimezone(UTC)
    except OverflowError:
        raise ValueError("is too far away") from None
