"""Queries for what the database holds of one session. Each query reads the session's own rows only."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Connection, func, select

from db.models import Attempt, Effect, HandledCommand, InboxEntry, QuarantinedMessage, Transition, Try
from db.states import EffectState
from invigilator.demo.snapshot import REMOVED, AttemptView, outcome_text

OPEN = (EffectState.PENDING, EffectState.RUNNING)
SETTLED = (EffectState.DONE, EffectState.SUPERSEDED)


@dataclass(frozen=True, slots=True)
class SessionQueries:
    """Reads the rows of one session.

    Parameters:
        connection: a connection to the system's database.
        source: the source of the session's commands.
        run: the session's run id, which each of its malformed messages contains.
        exam_ids: the ids of the session's exams.
    """

    connection: Connection
    source: str
    run: str
    exam_ids: Sequence[str]

    def committed(self) -> int:
        """Count the commands that have an outcome."""
        handled = select(func.count()).select_from(HandledCommand).join(InboxEntry)
        return self.connection.scalar(handled.where(InboxEntry.source == self.source)) or 0

    def quarantined(self) -> int:
        """Count the messages in quarantine."""
        mine = select(func.count()).select_from(QuarantinedMessage).where(self._is_mine())
        return self.connection.scalar(mine) or 0

    def outcomes(self) -> dict[str, str]:
        """Return the outcome of each handled command, by command id."""
        rows = self.connection.execute(
            select(InboxEntry.command_id, HandledCommand.outcome, HandledCommand.code)
            .outerjoin(HandledCommand)
            .where(InboxEntry.source == self.source)
        )
        return {command_id: outcome_text(outcome, code) for command_id, outcome, code in rows}

    def quarantine(self) -> Counter[str]:
        """Count the messages in quarantine by code."""
        rows = self.connection.execute(
            select(QuarantinedMessage.code, func.count())
            .where(self._is_mine())
            .group_by(QuarantinedMessage.code)
        )
        return Counter(dict(rows.all()))

    def _is_mine(self) -> ColumnElement[bool]:
        return QuarantinedMessage.body.bool_op("~~")(f"%{self.run}%".encode())  # LIKE on bytea

    def effects(self) -> Counter[tuple[str, str]]:
        """Count the effects by (kind, state)."""
        rows = self.connection.execute(
            select(Effect.kind, Effect.state, func.count())
            .where(Effect.source == self.source)
            .group_by(Effect.kind, Effect.state)
        )
        return Counter({(kind, state): count for kind, state, count in rows})

    def tries(self) -> Counter[str]:
        """Count the tries of effects by result."""
        rows = self.connection.execute(
            select(func.coalesce(Try.result, "running"), func.count())
            .join(Effect)
            .where(Effect.source == self.source)
            .group_by(Try.result)
        )
        return Counter(dict(rows.all()))

    def attempts(self) -> dict[tuple[str, str], AttemptView]:
        """Return the live attempts by (learner, exam)."""
        rows = self.connection.execute(
            select(Attempt.__table__).where(Attempt.exam_id.in_(self.exam_ids), Attempt.removed_at.is_(None))
        )
        return {
            (row.user_id, row.exam_id): AttemptView(
                row.attempt_code,
                row.status,
                row.taking_as_proctored,
                row.external_id,
                row.started_at is not None,
                row.completed_at is not None,
            )
            for row in rows
        }

    def statuses(self) -> Counter[str]:
        """Count all attempts by status. A removed attempt counts as `removed`."""
        rows = self.connection.execute(
            select(Attempt.status, Attempt.removed_at.is_not(None), func.count())
            .where(Attempt.exam_id.in_(self.exam_ids))
            .group_by(Attempt.status, Attempt.removed_at.is_not(None))
        )
        counts: Counter[str] = Counter()
        for status, removed, count in rows:
            counts[REMOVED if removed else status] += count
        return counts

    def histories(self) -> dict[tuple[str, str], tuple[tuple[str, ...], ...]]:
        """Return the statuses that the attempts at each (learner, exam) went through, oldest attempt first."""
        lives: defaultdict[tuple[str, str], defaultdict[tuple[object, bool], list[str]]] = defaultdict(
            lambda: defaultdict(list)
        )
        for user_id, exam_id, attempt_id, removed, status in self._transitions():
            lives[user_id, exam_id][attempt_id, removed].append(status)
        return {
            key: tuple((*life, REMOVED) if removed else tuple(life) for (_, removed), life in each.items())
            for key, each in lives.items()
        }

    def _transitions(self) -> Sequence[tuple[str, str, object, bool, str]]:
        rows = self.connection.execute(
            select(
                Attempt.user_id,
                Attempt.exam_id,
                Attempt.id,
                Attempt.removed_at.is_not(None),
                Transition.to_status,
            )
            .join(Transition, Transition.attempt_id == Attempt.id)
            .where(Attempt.exam_id.in_(self.exam_ids))
            .order_by(Attempt.id, Transition.version)  # ids follow the moment of handling
        )
        return [(row[0], row[1], row[2], row[3], row[4]) for row in rows]
