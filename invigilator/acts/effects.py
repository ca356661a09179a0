"""Retrying and cancelling effects: those that are named, or all that fit a filter, in steps.

Example:
    >>> def retry_all(engine: Engine, ada: Actor) -> int:
    ...     wanted = Filter(kinds=("set_credit_status",), cause="0f3c…")
    ...     act = start(engine, ada, Action.RETRY, wanted, reason="the service is back")
    ...     while not act.is_over:
    ...         progress = act.step()
    ...     return progress.done
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import ColumnElement, Connection, Engine
from sqlalchemy.exc import DBAPIError

from db import bulk, causes, effect_filters, effect_preview, operators, pauses
from db.acts import Target
from db.bulk import BulkState, Progress
from db.effect_filters import Filter
from db.effect_preview import Group
from db.models import Effect
from db.operators import Changed
from db.states import EffectState
from events.errors import InvigilatorError
from invigilator.acts.actor import Action, Actor
from invigilator.acts.transactions import acting, new_act, record
from worker.effects import answers
from worker.kinds import EffectKind, Service

STEP_EFFECTS = 500
"""The most effects that one transaction changes, so that nobody waits long for their locks."""
KEPT_REFUSALS = 1_000
"""Of so many effects an act remembers why they were refused. The others are counted."""


@dataclass(frozen=True, slots=True)
class Change:
    """What an action does to effects.

    Parameters:
        apply: does it in the caller's transaction, to those that are in one of some states.
        states: those in which it can be done.
        after: the state in which it leaves them.
    """

    apply: Callable[[Connection, Collection[UUID], Sequence[str]], Changed]
    states: Sequence[EffectState]
    after: EffectState


CHANGES: Mapping[Action, Change] = {
    Action.RETRY: Change(operators.retry, operators.RETRYABLE, EffectState.PENDING),
    Action.CANCEL: Change(operators.cancel, operators.CANCELLABLE, EffectState.CANCELLED),
}


class WrongFilterError(InvigilatorError):
    """An action cannot be done to what a filter means."""

    code = "wrong_filter"


class UnknownFilterError(WrongFilterError):
    """A filter names something that no effect can have.

    Parameters:
        member: of the filter, in the singular.
        reason: says what to do.
    """

    code = "unknown_filter"

    def __init__(self, member: str, reason: str) -> None:
        super().__init__(reason)
        self.member = member


@dataclass(frozen=True, slots=True)
class Preview:
    """What an act would find.

    Parameters:
        groups: how many effects, by kind and cause, the most frequent first.
        late: how many would be carried out after a newer one of their order, such as old mails.
    """

    groups: Sequence[Group]
    late: int = 0

    @property
    def number(self) -> int:
        """How many effects."""
        return sum(one.count for one in self.groups)

    @property
    def warning(self) -> str | None:
        """What should be known before it is done. None where there is nothing to say."""
        if not self.late:
            return None
        return (
            f"{self.late:,} of them would come too late: a newer one of the same order is done already. An old "
            "mail would be sent after a newer one about the same attempt. Cancel those that should not go"
        )


@dataclass(frozen=True, slots=True)
class Done:
    """What an act has done.

    Parameters:
        act_id: in the audit. None if nothing was changed.
        number: how many effects it has changed.
        refused: why not, for each of the others, or for the first `KEPT_REFUSALS` of an act in bulk.
        next: the effect after which the next call goes on. None when none is left.
    """

    act_id: UUID | None
    number: int
    refused: Mapping[UUID, str]
    next: UUID | None = None


# --- those that are named ----------------------------------------------------------------------------------


def change(
    engine: Engine, actor: Actor, action: Action, effect_ids: Sequence[UUID], reason: str | None
) -> Done:
    """Retry or cancel effects, up to `STEP_EFFECTS` in each transaction.

    Parameters:
        action: one of `CHANGES`.
        effect_ids: each counts once.
        reason: why, in the actor's words.
    """
    chosen = list(dict.fromkeys(effect_ids))
    act_id, number, refused = uuid4(), 0, dict[UUID, str]()
    for start_at in range(0, len(chosen), STEP_EFFECTS):
        some = chosen[start_at : start_at + STEP_EFFECTS]
        with acting(engine) as connection:
            changed = CHANGES[action].apply(connection, some, CHANGES[action].states)
            closing = start_at + STEP_EFFECTS >= len(chosen)
            if changed.before or (closing and number):
                act = new_act(
                    actor,
                    action,
                    {"effects": [str(one) for one in some]},
                    number=len(changed.before),
                    details={"refused": len(changed.refused)},
                    reason=reason,
                    targets=_targets(action, changed),
                )
                record(connection, replace(act, act_id=act_id, closing=closing))
        number += len(changed.before)
        refused |= changed.refused
    return Done(act_id if number else None, number, refused)


def _targets(action: Action, changed: Changed) -> list[Target]:
    after = CHANGES[action].after.value
    return [Target(effect_id, before, after) for effect_id, before in changed.before.items()]


# --- all that fit ------------------------------------------------------------------------------------------


def preview(connection: Connection, action: Action, wanted: Filter) -> Preview:
    """Return what an act in bulk would find. Raises what `start` raises."""
    applied = meant(action, wanted)
    check(connection, applied)
    return _preview(connection, action, effect_filters.conditions(applied))


def preview_of(connection: Connection, action: Action, effect_ids: Collection[UUID]) -> Preview:
    """Return what an act on effects that are named would find."""
    return _preview(connection, action, [Effect.id.in_(effect_ids)])


def _preview(connection: Connection, action: Action, conditions: Sequence[ColumnElement[bool]]) -> Preview:
    late = effect_preview.late(connection, conditions) if action is Action.RETRY else 0
    return Preview(effect_preview.groups(connection, conditions), late)


def check(connection: Connection, wanted: Filter) -> None:
    """Make sure that a filter names nothing that no effect can have, which would look as if nothing had failed.

    Raises:
        UnknownFilterError: there is no such state, kind or cause.
    """
    for member, words, given in (
        ("state", list(EffectState), wanted.states),
        ("kind", list(EffectKind), wanted.kinds),
    ):
        if unknown := [one for one in given if one not in words]:
            raise UnknownFilterError(
                member, f"there is no {member} {unknown[0]}; there are {', '.join(words)}"
            )
    if wanted.cause is not None and causes.find(connection, wanted.cause) is None:
        raise UnknownFilterError(
            "cause",
            f"there is no cause {wanted.cause}; `invigilator effects causes`, GET /v1/effects/causes and the "
            "console's page of causes list them",
        )


def meant(action: Action, wanted: Filter) -> Filter:
    """Return the filter as it is applied: without a state it means those that have failed.

    Raises:
        WrongFilterError: it means everything, or a state that the action leaves alone.
    """
    if wanted.is_empty:
        raise WrongFilterError(
            f"say which effects to {action}; the state `failed` means all that have failed"
        )
    allowed = CHANGES[action].states
    if wrong := [state for state in wanted.states if state not in allowed]:
        raise WrongFilterError(
            f"{wrong[0]} effects cannot be asked to {action}; only {', '.join(allowed)} ones"
        )
    return wanted if wanted.states else replace(wanted, states=(EffectState.FAILED.value,))


@dataclass(slots=True)
class BulkAct:
    """An act on all effects that fit a filter, a transaction for each step. One thread uses it.

    A process that is killed leaves what its steps have done. Who starts the act anew goes on with what still fits.
    """

    engine: Engine
    actor: Actor
    action: Action
    wanted: Filter
    reason: str | None
    most: int | None
    """How many effects it looks at. None for all."""
    progress: Progress
    refused: dict[UUID, str] = field(default_factory=dict)
    """Why effects were refused, of the first `KEPT_REFUSALS`."""
    after: UUID | None = None
    """The last effect that it has looked at."""
    _looked_at: int = 0

    @property
    def is_over(self) -> bool:
        """Whether it has ended."""
        return self.progress.ended_at is not None

    def step(self) -> Progress:
        """Change the next effects, or end the act: when none is left, or somebody has asked it to stop.

        Raises:
            sqlalchemy.exc.DBAPIError: the database refused the step, which has left nothing. It may be repeated.
        """
        chosen, changed = list[UUID](), None
        with acting(self.engine) as connection:
            if room := self._room():
                chosen = effect_filters.ids(connection, self.wanted, after=self.after, limit=room)
            if not chosen:
                progress = self._close(connection, BulkState.FINISHED)
            elif bulk.is_to_stop(connection, self.progress.id):
                progress = self._close(connection, BulkState.STOPPED)
            else:
                # Somebody may have changed some of them since they were looked for.
                changed = CHANGES[self.action].apply(connection, chosen, self.wanted.states)
                progress = self._advance(connection, changed)
        self.progress = progress
        if changed is not None:
            self._remember(chosen, changed)
        return progress

    @property
    def next(self) -> UUID | None:
        """The effect after which another act goes on, because this one may look at no more. None otherwise."""
        return self.after if self.most is not None and self._looked_at == self.most else None

    def end(self, state: BulkState) -> Progress:
        """End the act before all is done.

        Parameters:
            state: `stopped`, or `failed` when something went wrong.
        """
        with acting(self.engine) as connection:
            self.progress = self._close(connection, state)
        return self.progress

    def _room(self) -> int:
        left = STEP_EFFECTS if self.most is None else self.most - self._looked_at
        return min(STEP_EFFECTS, left)

    def _advance(self, connection: Connection, changed: Changed) -> Progress:
        progress = bulk.advance(connection, self.progress.id, len(changed.before), len(changed.refused))
        if changed.before:
            self._append(connection, len(changed.before), {}, _targets(self.action, changed))
        return progress

    def _remember(self, chosen: Sequence[UUID], changed: Changed) -> None:
        self.after, self._looked_at = chosen[-1], self._looked_at + len(chosen)
        room = KEPT_REFUSALS - len(self.refused)
        self.refused |= dict(islice(changed.refused.items(), room))

    def _close(self, connection: Connection, state: BulkState) -> Progress:
        progress = bulk.end(connection, self.progress.id, state)
        details = {"expected": progress.expected, "refused": progress.refused, "state": state.value}
        self._append(connection, progress.done, details, closing=True)
        return progress

    def _append(
        self,
        connection: Connection,
        number: int,
        details: Mapping[str, Any],
        targets: Sequence[Target] = (),
        *,
        closing: bool = False,
    ) -> None:
        act = new_act(
            self.actor,
            self.action,
            self.wanted.as_json(),
            number=number,
            details=details,
            reason=self.reason,
            targets=targets,
            user_id=self.wanted.user_id,
        )
        record(connection, replace(act, act_id=self.progress.id, closing=closing))


def start(
    engine: Engine,
    actor: Actor,
    action: Action,
    wanted: Filter,
    reason: str | None,
    *,
    most: int | None = None,
    after: UUID | None = None,
) -> BulkAct:
    """Begin to retry or to cancel all effects that fit a filter, oldest first. Nothing is changed yet.

    Parameters:
        action: one of `CHANGES`.
        wanted: without a state it means those that have failed.
        reason: why, in the actor's words.
        most: how many effects to look at. None for all.
        after: an effect. Only those after it, which are newer, are meant.

    Raises:
        WrongFilterError: the filter means everything, or what the action leaves alone, or names what is not there.
    """
    applied, act_id = meant(action, wanted), uuid4()
    with acting(engine) as connection:
        check(connection, applied)
        expected = effect_filters.count(connection, applied)
        bulk.start(connection, act_id, action.value, applied.as_json(), actor.name, expected)
        progress = bulk.read(connection, act_id)
    assert progress is not None
    return BulkAct(engine, actor, action, applied, reason, most, progress, after=after)


def run(act: BulkAct, on_step: Callable[[Progress], object] = lambda _: None) -> Done:
    """Make all steps of an act, to its end.

    Parameters:
        on_step: is told how far the act has come, after each step.

    Raises:
        sqlalchemy.exc.DBAPIError: the database refused a step. The act has ended, and those before it count.
    """
    try:
        while not act.is_over:
            on_step(act.step())
    except Exception:
        # The error is the news. A database that is away does not hear that the act has ended.
        with suppress(DBAPIError):
            act.end(BulkState.FAILED)
        raise
    return Done(act.progress.id, act.progress.done, act.refused, act.next)


def stop(connection: Connection, actor: Actor, act_id: UUID) -> bool:
    """Have an act in bulk end before its next step, whoever runs it, in the caller's transaction.

    The act has a row of the audit that says who has stopped it.

    Returns whether it was running.
    """
    stopped = bulk.stop(connection, act_id)
    if stopped:
        act = new_act(actor, Action.STOP, {"act": str(act_id)}, number=0, details={}, reason=None)
        record(connection, replace(act, act_id=act_id, closing=False))
    return stopped


# --- how they are shown ------------------------------------------------------------------------------------


def shown(connection: Connection, rows: Iterable[Mapping[str, Any]]) -> Iterable[dict[str, Any]]:
    """Return rows of effects as people see them: with a label, and whether their kind is paused.

    Parameters:
        rows: with a payload, which is taken out.
    """
    words = _paused_kinds(connection)
    return ({**_without_payload(row), "label": _label(row), "paused": _paused(row, words)} for row in rows)


def paused(connection: Connection, effect: Mapping[str, Any]) -> str | None:
    """Say until when the kind of an effect is paused, and why. None when it is not, or the effect has ended."""
    return _paused(effect, _paused_kinds(connection))


def sent_with(effect: Mapping[str, Any]) -> str | None:
    """Return the header by which the other side's log has the calls of an effect. None where nobody is called.

    Parameters:
        effect: with its id, kind and event_id.

    Example:
        >>> sent_with({"id": 7, "kind": "set_credit_status", "event_id": None})
        'Idempotency-Key: 7'
    """
    if effect["kind"] not in list(EffectKind):
        return None
    service = EffectKind(effect["kind"]).entry.service
    return None if service is None else _SENT_WITH[service].format(**effect)


_SENT_WITH: Mapping[str, str] = {
    Service.CREDIT: "Idempotency-Key: {id}",
    Service.INSTRUCTOR: "Idempotency-Key: {id}",
    Service.MAILER: "Message-ID: <{id}@…>",
    Service.WEBHOOKS: "webhook-id: {event_id}",
}
"""By whom is called: what goes with each try, the same every time. docs/contract.md promises it."""


def _paused_kinds(connection: Connection) -> Mapping[str, str]:
    return {one.kind: answers.paused(one.ends_at, one.reason) for one in pauses.current(connection)}


def _paused(effect: Mapping[str, Any], words: Mapping[str, str]) -> str | None:
    is_open = effect["state"] in (EffectState.PENDING, EffectState.RUNNING)
    return words.get(effect["kind"]) if is_open else None


def _label(row: Mapping[str, Any]) -> str:
    return answers.subject(row["kind"], row["payload"])


def _without_payload(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name != "payload"}
