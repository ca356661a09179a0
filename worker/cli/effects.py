"""`invigilator effects`: what is owed, and what a person may do about it."""

from collections.abc import Callable, Collection, Iterable, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, TypeVar
from uuid import UUID

import typer

from events.errors import InvigilatorError
from worker.cli.output import (
    AsJson,
    AsJsonLines,
    Limit,
    print_document,
    print_done,
    print_rows,
    rows_wanted,
)

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

COLUMNS = ("id", "kind", "state", "tries", "due_at", "last_error")
TRANSACTION_ROWS = 1000  # changed at a time, so that nobody waits long for their locks

Kind = Annotated[str | None, typer.Option(help="Only of this kind, such as send_status_email.", metavar="K")]
Ids = Annotated[list[UUID], typer.Argument(help="Ids of effects.", metavar="ID")]
Word = TypeVar("Word", bound=StrEnum)

app = typer.Typer(help="Look at effects, retry and cancel them.")


@app.command("list")
def list_(
    state: Annotated[
        str | None,
        typer.Option(
            help="Only in this state: pending, running, done, failed, superseded or cancelled.", metavar="S"
        ),
    ] = None,
    kind: Kind = None,
    limit: Limit = None,
    as_json: AsJsonLines = False,
) -> None:
    """List effects, newest first."""
    from db import lookups
    from db.models import EffectKind, EffectState
    from worker.cli.database import reading

    wanted_state = _choice("--state", EffectState, state)
    wanted_kind = _choice("--kind", EffectKind, kind)
    with reading() as connection:
        rows = lookups.effects(
            connection, state=wanted_state, kind=wanted_kind, limit=rows_wanted(limit, as_json)
        )
        print_rows(rows, COLUMNS, as_json, "effects")


@app.command("show")
def show(
    effect_id: Annotated[UUID, typer.Argument(help="The effect's id.", metavar="ID")], as_json: AsJson = False
) -> None:
    """Show an effect with its payload and every try."""
    from db import lookups
    from worker.cli.database import reading

    with reading() as connection:
        found = lookups.effect(connection, effect_id)
    if found is None:
        raise InvigilatorError("no such effect; `invigilator effects list` names those that there are")
    print_document(found, as_json)


@app.command("retry")
def retry(
    effect_ids: Annotated[list[UUID] | None, typer.Argument(help="Ids of effects.", metavar="ID")] = None,
    state: Annotated[
        str | None, typer.Option(help="All that are failed (or cancelled, or pending).", metavar="S")
    ] = None,
    kind: Kind = None,
    as_json: AsJson = False,
) -> None:
    """Make failed or cancelled effects pending again, due now; pending ones become due now.

    Others are refused, and so is one with a newer effect on its target.
    """
    from db import lookups, operators
    from db.models import EffectKind
    from worker.cli.database import open_engine

    if bool(effect_ids) == bool(state):
        raise typer.BadParameter("name either effects or a --state", param_hint="ID")
    if kind and not state:
        raise typer.BadParameter("goes with --state", param_hint="--kind")
    wanted_state = _choice("--state", operators.RETRYABLE, state)
    wanted_kind = _choice("--kind", EffectKind, kind)
    with open_engine() as engine:
        chosen: Sequence[UUID] = effect_ids or []
        if wanted_state:
            with engine.connect() as connection:
                chosen = lookups.effect_ids(connection, wanted_state, wanted_kind)
        _change("retried", engine, operators.retry, chosen, as_json)


@app.command("cancel")
def cancel(effect_ids: Ids, as_json: AsJson = False) -> None:
    """Cancel effects that are pending or failed: nobody will carry them out."""
    from db import operators
    from worker.cli.database import open_engine

    with open_engine() as engine:
        _change("cancelled", engine, operators.cancel, effect_ids, as_json)


def _change(
    verb: str,
    engine: "Engine",
    change: "Callable[[Connection, Collection[UUID]], dict[UUID, str]]",
    effect_ids: Sequence[UUID],
    as_json: bool,
) -> None:
    from worker.cli.database import writing

    chosen = list(dict.fromkeys(effect_ids))
    refused: dict[UUID, str] = {}
    for start in range(0, len(chosen), TRANSACTION_ROWS):
        with writing(engine) as connection:
            refused |= change(connection, chosen[start : start + TRANSACTION_ROWS])
    print_done(verb, len(chosen) - len(refused), refused, as_json)


def _choice(option: str, words: Iterable[Word], given: str | None) -> Word | None:
    # Not left to typer: the words live beside the tables, which take long to load.
    if given is None:
        return None
    by_value = {word.value: word for word in words}
    if given not in by_value:
        raise typer.BadParameter(f"must be one of {', '.join(by_value)}", param_hint=option)
    return by_value[given]
