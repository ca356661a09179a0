"""When something happened: the time that its sender says, as far as it is believed (docs/rules.md, "When")."""

from dataclasses import dataclass
from datetime import datetime, timedelta

MAX_AHEAD = timedelta(seconds=60)
"""A time that is further in the future is not believed, because the sender's clock must be wrong."""


@dataclass(frozen=True, slots=True)
class Clock:
    """Judges the times that senders say. All times are aware datetimes.

    Parameters:
        now: the database's clock.
        believe_for: how old the time of an act may be.

    Example:
        >>> noon = datetime.fromisoformat("2026-03-01T12:00:00Z")
        >>> clock = Clock(now=noon, believe_for=timedelta(hours=24))
        >>> clock.of_act(noon - timedelta(hours=1), handled_at=noon).hour
        11
        >>> clock.of_act(noon - timedelta(hours=25), handled_at=noon).hour
        12
        >>> clock.of_description(noon - timedelta(hours=25), handled_at=noon).hour
        11
    """

    now: datetime
    believe_for: timedelta

    def of_act(self, time: datetime | None, handled_at: datetime) -> datetime:
        """Return when an act happened.

        Parameters:
            time: what the sender says, or None.
            handled_at: the moment of handling. It counts when the sender is not believed.
        """
        if time is None or self.now - time > self.believe_for:
            return handled_at
        return self.of_description(time, handled_at)

    def of_description(self, time: datetime | None, handled_at: datetime) -> datetime:
        """Return from when a course, an exam or a learner is as an upsert says. The time may be as old as it likes.

        Parameters:
            time: what the sender says, or None.
            handled_at: the moment of handling. It counts when there is no time, or one in the future.
        """
        return handled_at if time is None or time - self.now > MAX_AHEAD else time
