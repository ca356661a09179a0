"""Ids that sort by time, and that are the same when the work that uses them is run again."""

import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

COUNTER_BITS = 20
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Receipt:
    """The moment at which a piece of work was taken up, and the ids of the rows that follow from it.

    A batch that is rolled back and run again makes the same ids, so that retries leave no trace.
    """

    at: datetime
    first_id: int

    def ids(self) -> Iterator[UUID]:
        """The ids: up to a million UUIDs of version 7. Each call returns the same ones."""
        return (UUID(int=self.first_id + n) for n in range(1 << COUNTER_BITS))


def new_receipt(now: datetime | None = None) -> Receipt:
    """A receipt for this moment, or for `now` (with a time zone). Its ids are UUIDs of version 7 (RFC 9562)."""
    at = now or datetime.now(UTC)
    milliseconds, microseconds = divmod((at - EPOCH) // MICROSECOND, 1000)
    fraction = microseconds * 4096 // 1000  # of the millisecond, in 12 bits
    random = secrets.randbits(62 - COUNTER_BITS) << COUNTER_BITS
    return Receipt(at, milliseconds << 80 | 0x7 << 76 | fraction << 64 | 0b10 << 62 | random)
