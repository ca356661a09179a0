"""`invigilator effects`: lists the effects that are owed, says why some fail, and retries or cancels them."""

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from enum import StrEnum
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import UUID

import click

from events.errors import InvigilatorError
from invigilator.acts.actor import Action
from invigilator.cli.moments import PAST
from invigilator.cli.options import JSON, JSON_LINES, LIMIT, REASON
from invigilator.cli.output import print_document, print_done, print_rows, rows_wanted, say, to_json, warn

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

    from db.effect_filters import Filter
    from invigilator.acts.effects import BulkAct, Preview

COLUMNS = (
    "id",
    "label",
    "state",
    "tries",
    "due_at",
    "waits_for",
    "paused",
    "command_id",
    "cause",
    "last_error",
)
CAUSE_COLUMNS = (
    "cause", "kind", "failed", "waiting", "untried", "status", "exception", "first_seen", "last_seen", "example",
    "reason",
)  # fmt: skip
GROUP_COLUMNS = ("count", "kind", "cause", "reason")
DONE = {Action.RETRY: "retried", Action.CANCEL: "cancelled"}
INTERRUPTED = 130  # the status that shells report for a program that Ctrl-C ended

Word = TypeVar("Word", bound=StrEnum)
Command = TypeVar("Command", bound=Callable[..., None])

app = click.Group("effects", help="Look at effects, retry and cancel them.", no_args_is_help=False)

_FILTER = (
    click.option(
        "--state",
        "states",
        multiple=True,
        metavar="S",
        help="Only in this state: pending, running, done, failed, superseded or cancelled. May be repeated.",
    ),
    click.option(
        "--kind", "kinds", multiple=True, metavar="K", help="Only of this kind, such as send_status_email."
    ),
    click.option("--user", "user_id", metavar="U", help="Only of this learner."),
    click.option("--course", "course_id", metavar="C", help="Only of exams of this course."),
    click.option("--exam", "exam_id", metavar="E", help="Only of this exam."),
    click.option("--attempt", metavar="CODE", help="Only of the attempt with this code."),
    click.option(
        "--cause", metavar="CAUSE", help="Only what failed last because of this: see `effects causes`."
    ),
    click.option("--error", metavar="TEXT", help="Only what fails with an error that contains this text."),
    click.option(
        "--since", type=PAST, metavar="TIME", help="Only owed at this time or later, or since 2h ago."
    ),
    click.option("--until", type=PAST, metavar="TIME", help="Only owed before this time, or until 2h ago."),
    click.option("--subscriber", metavar="NAME", help="Only deliveries to this one, such as webhook.acme."),
)


def _filtered(command: Command) -> Command:
    for option in reversed(_FILTER):
        command = option(command)
    return command


def _filter(states: tuple[str, ...], kinds: tuple[str, ...], **others: Any) -> "Filter":
    from db.effect_filters import Filter
    from db.states import EffectState
    from worker.kinds import EffectKind

    return Filter(_chosen("--state", EffectState, states), _chosen("--kind", EffectKind, kinds), **others)


def _check(connection: "Connection", wanted: "Filter") -> None:
    from invigilator.acts import effects as acts

    with _usage():
        acts.check(connection, wanted)


@contextmanager
def _usage() -> Iterator[None]:
    """Turn a filter that means what cannot be into wrong usage."""
    from invigilator.acts.effects import UnknownFilterError, WrongFilterError

    try:
        yield
    except UnknownFilterError as error:
        raise click.BadParameter(str(error), param_hint=f"--{error.member}") from None
    except WrongFilterError as error:
        raise click.BadParameter(str(error), param_hint="--state") from None


def _chosen(option: str, words: Iterable[Word], given: tuple[str, ...]) -> tuple[str, ...]:
    # click would need the words at import, and the modules that define them take long to load.
    known = [word.value for word in words]
    if any(word not in known for word in given):
        raise click.BadParameter(f"must be one of {', '.join(known)}", param_hint=option)
    return given


@app.command("list")
@_filtered
@click.option("--after", type=click.UUID, metavar="ID", help="Only those after this one in the list.")
@LIMIT
@JSON_LINES
def list_(after: UUID | None, limit: int | None, as_json: bool, **given: Any) -> None:
    """List effects, newest first."""
    from db import effect_filters
    from invigilator.acts.effects import shown
    from invigilator.cli.database import reading

    wanted = _filter(**given)
    with reading() as connection:
        _check(connection, wanted)
        rows = effect_filters.listed(connection, wanted, after=after, limit=rows_wanted(limit, as_json))
        print_rows(shown(connection, rows), COLUMNS, as_json, "effects", limit=limit)


@app.command("causes")
@JSON_LINES
def causes(as_json: bool) -> None:
    """Say why effects fail, or are tried again: a row for each cause, the most frequent first.

    The table counts those that have failed, those that wait for their next try, and those that a person has retried
    and that were not tried since. JSON has a line for each cause and state.
    """
    from db import causes as found
    from invigilator.cli.database import reading

    with reading() as connection:
        rows = found.failing(connection)
    rows = rows if as_json else found.by_cause(rows)
    print_rows(rows, CAUSE_COLUMNS, as_json, "effects that fail", limit=len(rows))


@app.command("show")
@click.argument("effect_id", type=click.UUID, metavar="ID")
@JSON
def show(effect_id: UUID, as_json: bool) -> None:
    """Show an effect with its payload and every try."""
    from db import lookups
    from invigilator.acts.effects import paused, sent_with
    from invigilator.cli.database import reading

    with reading() as connection:
        found = lookups.effect(connection, effect_id)
        if found is None:
            raise InvigilatorError("no such effect; `invigilator effects list` shows the existing ones")
        found = {**found, "paused": paused(connection, found), "sent_with": sent_with(found)}
    print_document(found, as_json)


def _acting(command: Command) -> Command:
    """Add what retrying and cancelling have in common."""
    options = (
        click.argument("effect_ids", type=click.UUID, nargs=-1, metavar="[ID]..."),
        *_FILTER,
        click.option("--dry-run", is_flag=True, help="Only count them, by kind and cause."),
        click.option("--yes", is_flag=True, help="Do not ask. Without a terminal nothing is asked."),
        REASON,
        JSON,
    )
    for option in reversed(options):
        command = option(command)
    return command


@app.command("retry")
@_acting
def retry(**given: Any) -> None:
    """Make failed or cancelled effects pending again, due now. Pending ones become due now.

    Name them, or say by a filter which are meant. Without --state a filter means those that have failed. Others are
    refused, and so is an effect with a newer one on its target. A failed mail goes now, even if newer ones about
    its attempt have gone.
    """
    _act(Action.RETRY, **given)


@app.command("cancel")
@_acting
def cancel(**given: Any) -> None:
    """Cancel effects that are pending or failed. No worker will carry them out.

    Name them, or say by a filter which are meant. Without --state a filter means those that have failed.
    """
    _act(Action.CANCEL, **given)


def _act(
    action: Action,
    effect_ids: tuple[UUID, ...],
    dry_run: bool,
    yes: bool,
    reason: str | None,
    as_json: bool,
    **given: Any,
) -> None:
    from invigilator.acts import effects as acts
    from invigilator.cli.database import open_engine
    from invigilator.cli.person import acting_as
    from worker.engines import resolve
    from worker.settings import load

    wanted = _filter(**given)
    if bool(effect_ids) != wanted.is_empty:
        raise click.BadParameter("name either effects or a filter such as --state failed", param_hint="ID")
    if dry_run and effect_ids:
        raise click.BadParameter("goes with a filter", param_hint="--dry-run")
    with _usage():
        applied = None if effect_ids else acts.meant(action, wanted)
    settings = resolve(load(), broker=False)
    with open_engine(settings) as engine:
        if applied is None:
            done = acts.change(engine, acting_as(settings), action, effect_ids, reason)
            print_done(DONE[action], done.number, done.refused, as_json)
            return
        if dry_run:
            _print_preview(action, _preview(engine, action, applied), as_json)
            return
        if _is_terminal() and not yes:
            found = _preview(engine, action, applied)
            _warn_of(found)
            click.confirm(f"{action} {found.number} effects?", abort=True, err=True)
        with _usage():
            act = acts.start(engine, acting_as(settings), action, applied, reason)
        _run(act, DONE[action], as_json)


def _is_terminal() -> bool:
    return sys.stdin.isatty()


def _preview(engine: "Engine", action: Action, wanted: "Filter") -> "Preview":
    from invigilator.acts import effects as acts

    with engine.connect() as connection, _usage():
        return acts.preview(connection, action, wanted)


def _print_preview(action: Action, found: "Preview", as_json: bool) -> None:
    if as_json:
        say(to_json({f"would_{action}": found.number}))
    else:
        say(f"would {action}: {found.number}")
        groups = [asdict(one) for one in found.groups]
        print_rows(groups, GROUP_COLUMNS, as_json, "effects", limit=len(groups))
    _warn_of(found)


def _warn_of(found: "Preview") -> None:
    if found.warning is not None:
        warn(found.warning)


def _run(act: "BulkAct", verb: str, as_json: bool) -> None:
    """Make the steps of an act, with a bar on a terminal. Ctrl-C ends it.

    Raises:
        click.exceptions.Exit: some effects were refused (1), or the act was stopped (130).
    """
    from db.bulk import BulkState, Progress
    from invigilator.acts import effects as acts

    with click.progressbar(
        length=act.progress.expected, label=verb, file=sys.stderr, hidden=not sys.stderr.isatty()
    ) as bar:

        def show(progress: Progress) -> None:
            bar.update(progress.done + progress.refused - bar.pos)

        try:
            acts.run(act, show)
        except KeyboardInterrupt:
            act.end(BulkState.STOPPED)
    progress = act.progress
    if progress.state == BulkState.STOPPED:
        warn(
            f"stopped: {progress.done} of {progress.expected} are {verb}; the same command goes on with the rest"
        )
        raise click.exceptions.Exit(INTERRUPTED)
    if progress.refused > len(act.refused):
        warn(f"{progress.refused} were refused; these are the first {len(act.refused)}")
    print_done(verb, progress.done, act.refused, as_json)
