"""Options that several commands share, as decorators."""

from enum import StrEnum
from typing import TypeVar

import click

from invigilator.cli.output import TABLE_ROWS

Word = TypeVar("Word", bound=StrEnum)

JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
JSON_LINES = click.option("--json", "as_json", is_flag=True, help="Print JSON, a line for each row.")
LIMIT = click.option(
    "--limit",
    type=click.IntRange(1, 2**31),
    metavar="N",
    help=f"Print at most N rows. Without it: {TABLE_ROWS} in a table, all of them as JSON.",
)
REASON = click.option("--reason", metavar="TEXT", help="Why. The audit keeps it.")


class EnumChoice(click.Choice[Word]):
    """Accepts one of the values of an enumeration. click's own type would accept the names of its members."""

    def normalize_choice(self, choice: object, ctx: click.Context | None) -> str:  # noqa: ARG002
        return str(choice)
