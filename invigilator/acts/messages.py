"""Replaying or discarding all messages in quarantine that fit, in steps, with progress."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from uuid import uuid4

from sqlalchemy import Connection, Engine

from db import bulk, quarantine_filters
from db.acts import NewAct
from db.bulk import BulkState, Progress
from db.quarantine_filters import Fitting
from invigilator.acts.actor import Action, Actor
from invigilator.acts.quarantine import Gone, RawPublisher, act_on, delete, republish
from invigilator.acts.transactions import acting, record

STEP_MESSAGES = 50
"""Each is published in the transaction that removes it, so a step takes longer than one of effects."""

Apply = Callable[[Connection, Sequence[int]], Sequence[Gone]]
"""Does it to messages, in the caller's transaction, and returns those that have left the quarantine."""


@dataclass(slots=True)
class BulkOfMessages:
    """An act on all messages that fit and were there when it began, oldest first. One thread uses it."""

    engine: Engine
    actor: Actor
    action: Action
    wanted: Fitting
    reason: str | None
    apply: Apply
    progress: Progress
    last: int
    """The newest message that it takes."""
    after: int = 0
    """The last message that it has looked at."""

    @property
    def is_over(self) -> bool:
        """Whether it has ended."""
        return self.progress.ended_at is not None

    def step(self) -> Progress:
        """Take the next messages, or end the act: when none is left, or somebody has asked it to stop.

        Raises:
            PublishError: the broker does not take a message. The step has left nothing in the database.
            sqlalchemy.exc.DBAPIError: the database refused the step, which has left nothing. It may be repeated.
        """
        with acting(self.engine) as connection:
            chosen = quarantine_filters.ids(
                connection, self.wanted, after=self.after, last=self.last, limit=STEP_MESSAGES
            )
            if not chosen or bulk.is_to_stop(connection, self.progress.id):
                progress = self._close(connection, BulkState.STOPPED if chosen else BulkState.FINISHED)
            else:
                gone = self.apply(connection, chosen)
                progress = bulk.advance(connection, self.progress.id, len(gone), len(chosen) - len(gone))
                if gone:
                    record(connection, self._act(gone))
        self.after, self.progress = max(chosen, default=self.after), progress
        return progress

    def end(self, state: BulkState) -> Progress:
        """End the act before all is done: `stopped`, or `failed` when something went wrong."""
        with acting(self.engine) as connection:
            self.progress = self._close(connection, state)
        return self.progress

    def _close(self, connection: Connection, state: BulkState) -> Progress:
        progress = bulk.end(connection, self.progress.id, state)
        details = {"expected": progress.expected, "refused": progress.refused, "state": state.value}
        record(connection, replace(self._act([]), number=progress.done, details=details, closing=True))
        return progress

    def _act(self, gone: Sequence[Gone]) -> NewAct:
        act = act_on(self.actor, self.action, self.progress.filter, gone, self.reason)
        return replace(act, act_id=self.progress.id, closing=False)


def replay_all(
    engine: Engine, actor: Actor, publisher: RawPublisher, wanted: Fitting, reason: str | None
) -> BulkOfMessages:
    """Begin to replay all messages that fit. Nothing is changed yet.

    Parameters:
        publisher: must stay open until the act is over.
        reason: why, in the actor's words.
    """

    def apply(connection: Connection, chosen: Sequence[int]) -> list[Gone]:
        found = (republish(connection, publisher, one) for one in chosen)
        return [one for one in found if isinstance(one, Gone)]

    return _start(engine, actor, Action.REPLAY, wanted, reason, apply)


def discard_all(engine: Engine, actor: Actor, wanted: Fitting, reason: str | None) -> BulkOfMessages:
    """Begin to delete all messages that fit. Nothing is changed yet.

    Parameters:
        reason: why, in the actor's words.
    """
    return _start(engine, actor, Action.DISCARD, wanted, reason, delete)


def _start(
    engine: Engine, actor: Actor, action: Action, wanted: Fitting, reason: str | None, apply: Apply
) -> BulkOfMessages:
    act_id = uuid4()
    with acting(engine) as connection:
        expected, last = quarantine_filters.count(connection, wanted)
        bulk.start(connection, act_id, action.value, {"messages": wanted.as_json()}, actor.name, expected)
        progress = bulk.read(connection, act_id)
    assert progress is not None
    return BulkOfMessages(engine, actor, action, wanted, reason, apply, progress, last)
