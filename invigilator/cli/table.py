"""Prints rows for a person as they come: a line for each where that fits, else a block. Values stay whole."""

import shutil
import sys
from collections.abc import Callable, Iterable, Sequence
from itertools import chain, islice

from wcwidth import clip, ljust, width

MEASURED_ROWS = 500
"""A column is as wide as its widest value in this many first rows. No more are read before the first is printed."""
FREE_TEXT = ("last_error", "error", "detail", "reason")
"""The only columns that are cut, when they are the last: their texts may be long, and nobody copies them."""
SHORTEST_TEXT = 40  # characters; where less room is left for a free text, each row is a block
GAP = "  "

Cells = Sequence[str]
Layout = Callable[[Cells], str]


def print_table(rows: Iterable[Cells], columns: Sequence[str], indent: str = "") -> int:
    """Print rows under the names of their columns. Print nothing when there are none.

    Where standard output is no terminal, each row is one line, however long.

    Parameters:
        rows: each has a text for each column, without line breaks.
        columns: their names.
        indent: stands before each line.

    Returns:
        how many rows there were.
    """
    remaining = iter(rows)
    first = list(islice(remaining, MEASURED_ROWS))
    if not first:
        return 0
    lines = _lines(first, columns, _screen_width() - len(indent))
    if lines:
        sys.stdout.write(f"{indent}{lines(columns)}\n")
    layout = lines or _blocks(columns, indent)
    printed = 0
    for row in chain(first, remaining):
        sys.stdout.write(f"{indent}{layout(row)}\n")
        printed += 1
    return printed


def _screen_width() -> int:
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else sys.maxsize


def _lines(first: Sequence[Cells], columns: Sequence[str], screen: int) -> Layout | None:
    """Return the layout with a line for each row; None where that does not fit."""
    *widths, last = (max(map(width, column)) for column in zip(columns, *first, strict=True))
    room = screen - sum(size + len(GAP) for size in widths)
    is_text = columns[-1] in FREE_TEXT
    if room < (min(last, SHORTEST_TEXT) if is_text else last):
        return None

    def line(row: Cells) -> str:
        *others, end = row
        padded = [ljust(cell, size) for cell, size in zip(others, widths, strict=True)]
        return GAP.join([*padded, _cut(end, room) if is_text else end])

    return line


def _cut(text: str, room: int) -> str:
    return text if width(text) <= room else clip(text, 0, room - 1) + "…"


def _blocks(columns: Sequence[str], indent: str) -> Layout:
    """Return the layout with a block for each row and an empty line after it."""
    widest = max(map(len, columns))

    def block(row: Cells) -> str:
        lines = (f"{name:{widest}}{GAP}{cell}" for name, cell in zip(columns, row, strict=True))
        return f"\n{indent}".join(lines) + "\n"

    return block
