"""`invigilator audit`: what people did, and whether anybody has changed the record of it."""

import re
from typing import TYPE_CHECKING
from uuid import UUID

import click

from invigilator.cli.options import JSON, JSON_LINES, LIMIT
from invigilator.cli.output import failing, print_document, print_rows, rows_wanted

if TYPE_CHECKING:
    from db.acts import Kept

COLUMNS = ("sequence", "at", "actor", "via", "action", "number", "act_id", "step", "filter", "reason")

app = click.Group("audit", help="Look at what people did, and verify it.", no_args_is_help=False)


@app.command("list")
@click.option("--act", "act_id", type=click.UUID, metavar="ID", help="Only steps of this act.")
@click.option(
    "--effect", "effect_id", type=click.UUID, metavar="ID", help="Only acts that changed this effect."
)
@click.option("--user", "user_id", metavar="U", help="Only acts about this learner.")
@LIMIT
@JSON_LINES
def list_(
    act_id: UUID | None, effect_id: UUID | None, user_id: str | None, limit: int | None, as_json: bool
) -> None:
    """List what people did, newest first. An act in bulk has a row for each step, and one with the sum."""
    from db import acts
    from invigilator.cli.database import reading

    with reading() as connection:
        rows = acts.acts(
            connection,
            act_id=act_id,
            effect_id=effect_id,
            user_id=user_id,
            limit=rows_wanted(limit, as_json),
        )
        print_rows(rows, COLUMNS, as_json, "acts", limit=limit)


@app.command("verify")
@click.option(
    "--kept",
    metavar="ROW",
    help="A `newest` that an earlier `audit verify` has printed. It must still be there.",
)
@JSON
def verify(kept: str | None, as_json: bool) -> None:
    """Verify that nobody has changed, removed or moved a row of the audit. The exit status is 1 if somebody has.

    The chain alone does not show that its newest rows were removed. So keep `newest` elsewhere, and name it next
    time.
    """
    from db import acts
    from invigilator.cli.database import reading

    expected = None if kept is None else _kept(kept)
    with reading() as connection:
        verdict = acts.verify(connection, expected)
    newest = verdict.newest and f"{verdict.newest.sequence}:{verdict.newest.hash.hex()}"
    document = {
        "holds": verdict.holds,
        "rows": verdict.rows,
        "newest": newest,
        "first_wrong": verdict.sequence,
        "problem": verdict.problem,
    }
    with failing(not verdict.holds):
        print_document(document, as_json)


def _kept(text: str) -> "Kept":
    from db.acts import Kept

    if not (parts := re.fullmatch("([0-9]{1,18}):([0-9a-f]{64})", text)):
        raise click.BadParameter("must be as `audit verify` prints `newest`", param_hint="--kept")
    return Kept(int(parts[1]), bytes.fromhex(parts[2]))
