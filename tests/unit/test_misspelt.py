"""Misspelt names: the distance of two names, and the nearest candidate."""

import pytest
from hypothesis import given
from hypothesis import strategies as some

from worker.misspelt import is_within, meant

WORDS = some.text("AB_", max_size=7)


def distance(one: str, other: str) -> int:
    """Compute the distance with the textbook's table: each cell is the distance of two prefixes."""
    table = {(i, -1): i + 1 for i in range(-1, len(one))} | {(-1, j): j + 1 for j in range(len(other))}
    for i, a in enumerate(one):
        for j, b in enumerate(other):
            ways = [table[i - 1, j] + 1, table[i, j - 1] + 1, table[i - 1, j - 1] + (a != b)]
            if i and j and (a, one[i - 1]) == (other[j - 1], b):
                ways.append(table[i - 2, j - 2] + 1)
            table[i, j] = min(ways)
    return table[len(one) - 1, len(other) - 1]


@given(WORDS, WORDS, some.integers(0, 3))
def test_it_is_exact(one: str, other: str, edits: int) -> None:
    assert is_within(one, other, edits) == (distance(one, other) <= edits)


@pytest.mark.parametrize(
    ("name", "right"),
    [
        ("SMTP_URI", "SMTP_URL"),
        ("MAX_M", "MAX_MB"),  # two edits from MAX, one from MAX_MB
        ("ULR", None),
        ("SMTP_ULR", "SMTP_URL"),
        ("SMTP", None),
        ("", None),
    ],
)
def test_the_nearest_one_is_meant(name: str, right: str | None) -> None:
    assert meant(name, ["MAX", "MAX_MB", "SMTP_URL"]) == right
