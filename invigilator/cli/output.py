"""How the commands print: JSON for programs, tables for people, one line for an error."""

import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from decimal import Decimal
from itertools import islice
from types import MappingProxyType
from typing import Any
from uuid import UUID

import click

TABLE_ROWS = 100
INDENT = "  "

Row = Mapping[str, Any]


def to_json(value: Any) -> str:
    """Return a value as one line of JSON in ASCII. Times are ISO 8601 in UTC with a Z."""
    return json.dumps(value, default=_plain)


def _plain(value: Any) -> Any:
    match value:
        case Mapping():
            return dict(value)
        case datetime():
            return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
        case UUID():
            return str(value)
        case Decimal():
            return float(value)
    raise TypeError(f"{type(value).__name__} is not printed")


def rows_wanted(limit: int | None, as_json: bool) -> int | None:
    """Return how many rows to ask the database for; None for all."""
    # By default, one more than a table shows, to know whether there are more.
    return TABLE_ROWS + 1 if limit is None and not as_json else limit


def print_rows(
    rows: Iterable[Row], columns: Sequence[str], as_json: bool, what: str, *, limit: int | None = None
) -> None:
    """Print rows as they come: as JSON lines, or as a table of some of their columns.

    Parameters:
        rows: as many as `rows_wanted`. Each is read when those before it are printed.
        columns: those of the table.
        as_json: whether JSON lines are wanted.
        what: what the rows are, in the plural. It is printed when there are none.
        limit: how many rows the user asked for. Without it, a table has at most `TABLE_ROWS`.
    """
    if as_json:
        for row in rows:
            say(to_json(row))
        return
    remaining = iter(rows)
    if not _print_table(remaining if limit is not None else islice(remaining, TABLE_ROWS), columns):
        say(f"no {what}")
    if next(remaining, None) is not None:
        warn(f"{TABLE_ROWS} rows are shown; for more use --limit or --json")


def print_document(document: Row, as_json: bool, empty: Mapping[str, str] = MappingProxyType({})) -> None:
    """Print one document: as one line of JSON, or field by field, with a table for each list of rows.

    Names in a list stand on one line.

    Parameters:
        empty: what is said of a member that holds nothing, by its name. The default is `none`.
    """
    if as_json:
        say(to_json(document))
        return
    for name, value in document.items():
        if isinstance(value, list | Mapping) and not value:
            say(f"{name}: {empty.get(name, 'none')}")
        elif isinstance(value, list) and isinstance(value[0], str):
            say(f"{name}: {one_line(', '.join(value))}")
        elif isinstance(value, list):
            say(f"{name}:")
            _print_table(value, list(value[0]), INDENT)
        elif isinstance(value, Mapping):
            say(f"{name}:")
            for part, content in value.items():
                say(f"{INDENT}{one_line(part)}: {_cell(content)}")
        else:
            say(f"{name}: {_cell(value)}")


def print_done(verb: str, count: int, refused: Mapping[Any, str], as_json: bool) -> None:
    """Print how many things were done, and for each that was refused the reason.

    Raises:
        click.exceptions.Exit: something was refused; the status is 1.
    """
    reasons = [{"id": refused_id, "reason": reason} for refused_id, reason in refused.items()]
    for refused_id, reason in refused.items():
        warn(f"{refused_id}: {reason}")
    with failing(bool(refused)):
        say(to_json({verb: count, "refused": reasons}) if as_json else f"{verb}: {count}")


@contextmanager
def failing(failed: bool) -> Iterator[None]:
    """End with status 1 after this block, also when standard output is closed.

    Parameters:
        failed: whether to do so.

    Raises:
        click.exceptions.Exit: the status is 1.
    """
    try:
        yield
    finally:
        if failed:
            raise click.exceptions.Exit(1)


def say(line: str) -> None:
    """Print one line on standard output."""
    sys.stdout.write(f"{line}\n")


def warn(text: str) -> None:
    """Print one line on standard error. Does nothing when that is closed."""
    with suppress(OSError):
        sys.stderr.write(f"invigilator: {one_line(text)}\n")


def one_line(text: object) -> str:
    """Return text on one line without control characters: a sender's text must not control a terminal."""
    words = " ".join(str(text).split())
    if words.isprintable():
        return words
    return "".join(character if character.isprintable() else "�" for character in words)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return one_line(value if isinstance(value, str) else to_json(value).strip('"'))


def _print_table(rows: Iterable[Row], columns: Sequence[str], indent: str = "") -> int:
    from invigilator.cli.table import print_table

    return print_table(([_cell(row[name]) for name in columns] for row in rows), columns, indent)
