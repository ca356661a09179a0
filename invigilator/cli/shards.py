"""`invigilator shards`: shows the number of shards, and changes it while commands flow."""

import time
from typing import TYPE_CHECKING, Any

import click

from invigilator.cli.options import JSON, REASON
from invigilator.cli.output import print_document, warn

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from db.resharding import Sharding

LOOK_EVERY_S = 0.5
DEFAULT_S = 12.0
"""Our publishers ask every 10 seconds, and have 10 seconds for a publish. Two more are for the broker."""
SECONDS = click.FloatRange(0.0, 86_400.0)


@click.group("shards", invoke_without_command=True, no_args_is_help=False)
@JSON
@click.pass_context
def app(context: click.Context, as_json: bool) -> None:
    """Show the number of shards, and how far a change of it has come."""
    if context.invoked_subcommand is None:
        from db import resharding
        from invigilator.cli.database import reading

        with reading() as connection:
            print_document(_document(resharding.read(connection)), as_json)


@app.command("set")
@click.argument("number", type=click.IntRange(min=1), metavar="N")
@click.option(
    "--notice",
    "notice_s",
    type=SECONDS,
    default=DEFAULT_S,
    show_default=True,
    metavar="S",
    help="Seconds for which publishers are told before. No publisher may take longer to ask.",
)
@click.option(
    "--settle",
    "settle_s",
    type=SECONDS,
    default=DEFAULT_S,
    show_default=True,
    metavar="S",
    help="Seconds after the change in which commands may arrive by the old number. No publish may take longer.",
)
@click.option("--no-wait", is_flag=True, help="Do not wait until it is finished.")
@REASON
@JSON
def set_(
    number: int, notice_s: float, settle_s: float, no_wait: bool, reason: str | None, as_json: bool
) -> None:
    """Change the number of shards while commands flow.

    The consumers do the work, and go on when this is interrupted. The same command again waits for the rest. One of
    the two numbers must divide the other.
    """
    from invigilator.acts import shards
    from invigilator.acts.transactions import acting
    from invigilator.cli.database import open_engine
    from invigilator.cli.person import acting_as
    from worker.engines import resolve
    from worker.settings import load

    settings = resolve(load(), broker=False)
    with open_engine(settings) as engine:
        with acting(engine) as connection:
            now = shards.set_shards(
                connection, acting_as(settings), number, reason, notice_s=notice_s, settle_s=settle_s
            )
        if not no_wait:
            now = _follow(engine, now)
    print_document(_document(now), as_json)


def _follow(engine: "Engine", now: "Sharding") -> "Sharding":
    """Say on standard error how far the change has come, until it is finished. Returns what it is then."""
    from sqlalchemy.exc import DBAPIError

    from db import resharding
    from db.errors import Failure, classify

    said = ""
    while now.resharding is not None:
        if (line := _line(now)) != said:
            warn(line)
            said = line
        time.sleep(LOOK_EVERY_S)
        try:
            with engine.begin() as connection:
                now = resharding.read(connection)
        except DBAPIError as error:
            if classify(error) is not Failure.UNAVAILABLE:
                raise
    return now


def _line(now: "Sharding") -> str:
    change = now.resharding
    assert change is not None
    waits_for = f", waiting for {change.waits_for}" if change.waits_for else ""
    return f"from {change.before} to {change.after} shards: {change.step}{waits_for}"


def _document(now: "Sharding") -> dict[str, Any]:
    from worker.health.facts import shown_resharding

    return {"shards": now.number, "resharding": shown_resharding(now.resharding)}
