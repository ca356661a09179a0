"""`invigilator partitions`: divides the tables that grow by month or by year, and drops old periods as a whole."""

from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from invigilator.cli.options import JSON, REASON
from invigilator.cli.output import failing, print_document, say, to_json, warn

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from db.dropping import Dropped
    from db.partitions import Divided


@click.group("partitions", invoke_without_command=True, no_args_is_help=False)
@JSON
@click.pass_context
def app(context: click.Context, as_json: bool) -> None:
    """Show into which partitions the tables that grow are divided."""
    if context.invoked_subcommand is None:
        from db import partitions
        from invigilator.cli.database import reading

        with reading() as connection:
            print_document(
                _document(connection, partitions.read(connection)), as_json, {"partitions": "none"}
            )


def _document(connection: "Connection", divided: "Divided") -> dict[str, Any]:
    from db import partitioning
    from db.partitions import KEYS

    return {
        "by": divided.by,
        "unfinished": [table for table in KEYS if partitioning.begun(connection, table)],
        "lacking": divided.lacking(),
        "partitions": [
            {
                "table": one.table,
                "name": one.name,
                "from": one.lower,
                "to": one.upper,
                "until": one.until,
                "rows": one.rows,
                "bytes": one.size,
            }
            for one in divided.partitions
        ],
    }


@app.command("begin")
@click.option(
    "--by",
    type=click.Choice(["month", "year"]),
    default="month",
    show_default=True,
    help="How long a period is.",
)
@REASON
@JSON
def begin(by: str, reason: str | None, as_json: bool) -> None:
    """Divide effects, tries, events, the inbox and outcomes, while commands flow.

    The rows that are there become the first partition, and are not copied. The same command again goes on where one
    was interrupted. There is no way back but a dump.
    """
    from db import partitions
    from invigilator.acts import partitions as acts
    from invigilator.cli.database import open_engine
    from invigilator.cli.person import acting_as
    from worker.engines import resolve
    from worker.settings import load

    settings = resolve(load(), broker=False)
    with open_engine(settings) as engine:
        for line in acts.begin(engine, acting_as(settings), partitions.By(by), reason):
            warn(line)
        with engine.connect() as connection:
            print_document(_document(connection, partitions.read(connection)), as_json)


@app.command("make")
@JSON
def make(as_json: bool) -> None:
    """Make the partitions of this period and the next two, as the relay does once a day.

    It is needed only where the relay's role does not own the tables.
    """
    from invigilator.cli.database import open_engine
    from worker.pruning import make_partitions

    with open_engine() as engine:
        print_document({"made": make_partitions(engine)}, as_json)


class Before(click.ParamType[datetime]):
    """The first moment of a month, or of a year, in UTC."""

    name = "YYYY-MM"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        from db.partitions import Period

        with suppress(ValueError):  # there are twelve months
            if period := Period.read(str(value).replace("-", "_")):
                return period.start
        return self.fail("is no month such as 2026-09, and no year such as 2026", param, ctx)


@app.command("drop")
@click.option(
    "--before",
    type=Before(),
    required=True,
    help="Drop what is wholly from before this month, or this year (UTC).",
)
@click.option("--dry-run", is_flag=True, help="Only show what would be dropped.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@REASON
@JSON
def drop(before: datetime, dry_run: bool, yes: bool, reason: str | None, as_json: bool) -> None:
    """Drop partitions that are wholly from before a month or a year.

    What a later decision may read stays: effects that are owed or have failed, and those that say which of them are
    overtaken. They are moved into `effects_rest`.
    """
    from db import partitions
    from invigilator.acts import partitions as acts
    from invigilator.cli.database import open_engine
    from invigilator.cli.person import acting_as
    from worker.engines import resolve
    from worker.settings import load

    settings = resolve(load(), broker=False)
    with open_engine(settings) as engine:
        with engine.connect() as connection:
            divided = partitions.read(connection)
            chosen = list(_chosen(connection, divided, before))
        if dry_run or not chosen:
            _print([{**one, "dropped": False} for one in chosen], as_json)
            return
        if not yes:
            for one in chosen:
                warn(f"{one['name']}: {one['stays'] or 'goes, with about ' + str(one['rows']) + ' rows'}")
            click.confirm("Drop them for good?", abort=True, err=True)
        dropping = acts.drop(engine, acting_as(settings), divided, before, reason)
        done = [_done(name, dropped) for name, dropped in dropping]
    with failing(not all(one["dropped"] for one in done)):
        _print(done, as_json)


def _chosen(connection: "Connection", divided: "Divided", before: datetime) -> Iterator[dict[str, Any]]:
    from db import dropping, partitions

    for tables in partitions.GROUPS:
        for part in dropping.droppable(divided, tables, before):
            why = dropping.why_not(connection, tables, part, before)
            rows = next(one.rows for one in divided.of(tables[0]) if one.part == part)
            yield {"name": f"{tables[0]}_{part}", "rows": rows, "kept": None, "stays": why}
            if why:
                break


def _done(name: str, dropped: "Dropped | str") -> dict[str, Any]:
    if isinstance(dropped, str):
        return {"name": name, "rows": None, "kept": None, "stays": dropped, "dropped": False}
    rows, kept = sum(dropped.rows.values()), sum(dropped.kept.values())
    return {"name": name, "rows": rows, "kept": kept, "stays": None, "dropped": True}


def _print(rows: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        say(to_json({"partitions": rows}))
    else:
        print_document({"partitions": rows}, as_json, {"partitions": "none is wholly from before that"})
