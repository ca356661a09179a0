"""`invigilator effects`: lists the effects that are owed, and lets a person retry or cancel them."""

from collections.abc import Callable, Collection, Iterable, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, TypeVar
from uuid import UUID

import click

from events.errors import InvigilatorError
from invigilator.cli.options import JSON, JSON_LINES, LIMIT
from invigilator.cli.output import print_document, print_done, print_rows, rows_wanted

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

COLUMNS = ("id", "kind", "state", "tries", "due_at", "waits_for", "last_error")
TRANSACTION_ROWS = 1000
"""The most effects that one transaction changes, so that nobody waits long for their locks."""

KIND = click.option("--kind", metavar="K", help="Only of this kind, such as send_status_email.")
Word = TypeVar("Word", bound=StrEnum)

app = click.Group("effects", help="Look at effects, retry and cancel them.", no_args_is_help=False)


@app.command("list")
@click.option(
    "--state",
    metavar="S",
    help="Only in this state: pending, running, done, failed, superseded or cancelled.",
)
@KIND
@LIMIT
@JSON_LINES
def list_(state: str | None, kind: str | None, limit: int | None, as_json: bool) -> None:
    """List effects, newest first."""
    from db import effect_filters
    from db.effect_filters import Filter
    from db.models import EffectState
    from invigilator.cli.database import reading
    from worker.kinds import EffectKind

    wanted_state = _choice("--state", EffectState, state)
    wanted_kind = _choice("--kind", EffectKind, kind)
    with reading() as connection:
        wanted = Filter(_known(wanted_state), _known(wanted_kind))
        rows = effect_filters.listed(connection, wanted, limit=rows_wanted(limit, as_json))
        print_rows(rows, COLUMNS, as_json, "effects", limit=limit)


@app.command("show")
@click.argument("effect_id", type=click.UUID, metavar="ID")
@JSON
def show(effect_id: UUID, as_json: bool) -> None:
    """Show an effect with its payload and every try."""
    from db import lookups
    from invigilator.cli.database import reading

    with reading() as connection:
        found = lookups.effect(connection, effect_id)
    if found is None:
        raise InvigilatorError("no such effect; `invigilator effects list` shows the existing ones")
    print_document(found, as_json)


@app.command("retry")
@click.argument("effect_ids", type=click.UUID, nargs=-1, metavar="[ID]...")
@click.option("--state", metavar="S", help="All that are failed (or cancelled, or pending).")
@KIND
@JSON
def retry(effect_ids: tuple[UUID, ...], state: str | None, kind: str | None, as_json: bool) -> None:
    """Make failed or cancelled effects pending again, due now. Pending ones become due now.

    Others are refused, and so is an effect with a newer one on its target. A failed mail goes now, even if newer
    ones about its attempt have gone.
    """
    from db import effect_filters, operators
    from db.effect_filters import Filter
    from invigilator.cli.database import open_engine
    from worker.kinds import EffectKind

    if bool(effect_ids) == bool(state):
        raise click.BadParameter("name either effects or a --state", param_hint="ID")
    if kind and not state:
        raise click.BadParameter("goes with --state", param_hint="--kind")
    wanted_state = _choice("--state", operators.RETRYABLE, state)
    wanted_kind = _choice("--kind", EffectKind, kind)
    with open_engine() as engine:
        chosen: Sequence[UUID] = effect_ids
        if wanted_state:
            with engine.connect() as connection:
                chosen = effect_filters.ids(connection, Filter(_known(wanted_state), _known(wanted_kind)))
        _change("retried", engine, operators.retry, chosen, as_json)


@app.command("cancel")
@click.argument("effect_ids", type=click.UUID, nargs=-1, required=True, metavar="ID...")
@JSON
def cancel(effect_ids: tuple[UUID, ...], as_json: bool) -> None:
    """Cancel effects that are pending or failed. No worker will carry them out."""
    from db import operators
    from invigilator.cli.database import open_engine

    with open_engine() as engine:
        _change("cancelled", engine, operators.cancel, effect_ids, as_json)


def _change(
    verb: str,
    engine: "Engine",
    change: "Callable[[Connection, Collection[UUID]], dict[UUID, str]]",
    effect_ids: Sequence[UUID],
    as_json: bool,
) -> None:
    from invigilator.cli.database import writing

    chosen = list(dict.fromkeys(effect_ids))
    refused: dict[UUID, str] = {}
    for start in range(0, len(chosen), TRANSACTION_ROWS):
        with writing(engine) as connection:
            refused |= change(connection, chosen[start : start + TRANSACTION_ROWS])
    print_done(verb, len(chosen) - len(refused), refused, as_json)


def _known(word: StrEnum | None) -> tuple[str, ...]:
    return () if word is None else (word.value,)


def _choice(option: str, words: Iterable[Word], given: str | None) -> Word | None:
    # click would need the words at import, and the modules that define them take long to load.
    if given is None:
        return None
    by_value = {word.value: word for word in words}
    if given not in by_value:
        raise click.BadParameter(f"must be one of {', '.join(by_value)}", param_hint=option)
    return by_value[given]
