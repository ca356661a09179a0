"""Replaying or discarding all messages in quarantine that fit, in steps, with progress."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from uuid import uuid4

from sqlalchemy import Connection, Engine

from db import bulk, quarantine_filters
from db.bulk import BulkState, Progress
from db.quarantine_filters import Fitting
from invigilator.acts.actor import Action, Actor
from invigilator.acts.quarantine import RawPublisher, discard, replay
from invigilator.acts.transactions import acting

STEP_MESSAGES = 50
"""Each is published in the transaction that removes it, so a step takes longer than one of effects."""

Apply = Callable[[Connection, Sequence[int]], int]
"""Does it to messages, in the caller's transaction, and returns to how many."""


@dataclass(slots=True)
class BulkOfMessages:
    """An act on all messages that fit and were there when it began, oldest first. One thread uses it.

    The audit has a row for each message that was replayed, and one for each step of those that were discarded.
    """

    engine: Engine
    wanted: Fitting
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
                state = BulkState.STOPPED if chosen else BulkState.FINISHED
                self.progress = bulk.end(connection, self.progress.id, state)
                return self.progress
            done = self.apply(connection, chosen)
            progress = bulk.advance(connection, self.progress.id, done, len(chosen) - done)
        self.after, self.progress = chosen[-1], progress
        return progress

    def end(self, state: BulkState) -> Progress:
        """End the act before all is done: `stopped`, or `failed` when something went wrong."""
        with acting(self.engine) as connection:
            self.progress = bulk.end(connection, self.progress.id, state)
        return self.progress


def replay_all(
    engine: Engine, actor: Actor, publisher: RawPublisher, wanted: Fitting, reason: str | None
) -> BulkOfMessages:
    """Begin to replay all messages that fit. Nothing is changed yet.

    Parameters:
        publisher: must stay open until the act is over.
        reason: why, in the actor's words.
    """

    def apply(connection: Connection, chosen: Sequence[int]) -> int:
        return sum(replay(connection, actor, publisher, one, reason) is None for one in chosen)

    return _start(engine, actor, Action.REPLAY, wanted, apply)


def discard_all(engine: Engine, actor: Actor, wanted: Fitting, reason: str | None) -> BulkOfMessages:
    """Begin to delete all messages that fit. Nothing is changed yet.

    Parameters:
        reason: why, in the actor's words.
    """

    def apply(connection: Connection, chosen: Sequence[int]) -> int:
        return len(discard(connection, actor, chosen, reason))

    return _start(engine, actor, Action.DISCARD, wanted, apply)


def _start(engine: Engine, actor: Actor, action: Action, wanted: Fitting, apply: Apply) -> BulkOfMessages:
    act_id = uuid4()
    with acting(engine) as connection:
        expected, last = quarantine_filters.count(connection, wanted)
        bulk.start(connection, act_id, action.value, {"messages": wanted.as_json()}, actor.name, expected)
        progress = bulk.read(connection, act_id)
    assert progress is not None
    return BulkOfMessages(engine, wanted, apply, progress, last)
