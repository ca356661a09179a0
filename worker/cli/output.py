"""How commands print: JSON for programs, tables for people, one line for an error."""

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import click
from wcwidth import ljust, width

TABLE_ROWS = 100

Row = Mapping[str, Any]


def to_json(value: Any) -> str:
    """A value as one line of JSON, plain ASCII; times are ISO 8601 in UTC with a Z."""
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
    """How many rows to ask the database for; None for all."""
    return TABLE_ROWS if limit is None and not as_json else limit


def print_rows(rows: Iterable[Row], columns: Sequence[str], as_json: bool) -> None:
    """Print rows: as JSON lines, one at a time as they come; or as a table of some of their columns."""
    if as_json:
        for row in rows:
            sys.stdout.write(to_json(row) + "\n")
        return
    shown = list(rows)
    _print_table(shown, columns)
    if len(shown) == TABLE_ROWS:
        warn(f"{TABLE_ROWS} rows are shown; for more use --limit or --json")


def print_document(document: Row, as_json: bool) -> None:
    """Print one document: as one line of JSON; or field by field, with a table for each list of rows."""
    if as_json:
        click.echo(to_json(document))
        return
    for name, value in document.items():
        if isinstance(value, list):
            click.echo(f"{name}:" if value else f"{name}: none")
            if value:
                _print_table(value, list(value[0]))
        elif isinstance(value, Mapping):
            click.echo(f"{name}:")
            for part, content in value.items():
                click.echo(f"  {one_line(part)}: {_cell(content)}")
        else:
            click.echo(f"{name}: {_cell(value)}")


def print_done(verb: str, count: int, refused: Mapping[Any, str], as_json: bool) -> None:
    """Print how many things were done, and each that was refused with the reason.

    Raises:
        click.exceptions.Exit: with status 1, when something was refused.
    """
    reasons = [{"id": refused_id, "reason": reason} for refused_id, reason in refused.items()]
    click.echo(to_json({verb: count, "refused": reasons}) if as_json else f"{verb}: {count}")
    for refused_id, reason in refused.items():
        warn(f"{refused_id}: {reason}")
    if refused:
        raise click.exceptions.Exit(1)


def warn(text: str) -> None:
    """Print one line on standard error."""
    click.echo(f"invigilator: {one_line(text)}", err=True)


def one_line(text: object) -> str:
    """Text on one line and without control characters: what a sender wrote must not drive a terminal."""
    words = " ".join(str(text).split())
    return "".join(character if character.isprintable() else "�" for character in words)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return one_line(value if isinstance(value, str) else to_json(value).strip('"'))


def _print_table(rows: Iterable[Row], columns: Sequence[str]) -> None:
    lines = [list(columns), *([_cell(row[name]) for name in columns] for row in rows)]
    widths = [max(map(width, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        cells = (ljust(cell, size) for cell, size in zip(line, widths, strict=True))
        click.echo("  ".join(cells).rstrip())
