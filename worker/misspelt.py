"""Recognises a misspelt name: finds the known name within a small edit distance."""

from collections.abc import Iterable

EDITS = 2


def meant(name: str, candidates: Iterable[str]) -> str | None:
    """Return the candidate nearest to `name`, at most two edits away, or None when there is none."""
    near = [candidate for candidate in candidates if is_within(name, candidate, EDITS)]
    return min(near, key=lambda candidate: (not is_within(name, candidate, 1), candidate), default=None)


def is_within(one: str, other: str, edits: int) -> bool:
    """Return whether at most `edits` edits turn one text into the other.

    An edit adds, removes or replaces one character, or swaps two neighbours (the Damerau-Levenshtein distance).
    """
    if abs(len(one) - len(other)) > edits:
        return False
    if one[:1] == other[:1] and one:
        return is_within(one[1:], other[1:], edits)
    if not edits:
        return one == other
    if not one or not other:
        return True
    swapped = one[:2] == other[1::-1]
    return (
        is_within(one[1:], other, edits - 1)
        or is_within(one, other[1:], edits - 1)
        or is_within(one[1:], other[1:], edits - 1)
        or (swapped and is_within(one[2:], other[2:], edits - 1))
    )
