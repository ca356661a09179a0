"""Receipts: ids that sort by time and are the same when they are derived again."""

from datetime import UTC, datetime, timedelta
from itertools import islice

from db.ids import new_receipt

NOW = datetime(2026, 3, 1, 9, tzinfo=UTC)


def test_a_stamp_gives_the_same_ids_again() -> None:
    one = new_receipt(NOW)
    first = list(islice(one.ids(), 5))
    assert list(islice(one.ids(), 5)) == first
    assert len(set(first)) == 5
    assert first == sorted(first)


def test_ids_are_version_7_and_sort_by_time() -> None:
    earlier, later = next(new_receipt(NOW).ids()), next(new_receipt(NOW + timedelta(microseconds=1)).ids())
    assert earlier.version == later.version == 7
    assert earlier < later
    assert earlier.int >> 80 == int(NOW.timestamp() * 1000)


def test_two_stamps_of_one_moment_share_no_id() -> None:
    ids = [next(new_receipt(NOW).ids()) for _ in range(1000)]
    assert len(set(ids)) == 1000
