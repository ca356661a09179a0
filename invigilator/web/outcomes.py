"""Those who wait for the outcomes of commands."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from db import awaited, wake
from db.awaited import Told
from db.inbox import Key
from events.commands import Command
from events.vocabulary import QuarantineCode
from invigilator.web.waiting import Waiters, Waiting

QUARANTINED = "quarantined"
_REUSED = "source and id are those of an earlier command with another type or other data; use a new id"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a command that somebody waits for."""

    outcome: str
    code: str | None
    detail: str | None


@dataclass(slots=True, eq=False)
class Sent(Waiting[Outcome]):
    """A command whose outcome somebody waits for.

    Parameters:
        command: it.
        before: what was known of its source and id before it was published.
    """

    command: Command
    before: Told

    def judge(self, told: Told) -> Outcome | None:
        """Return what became of the command. None while nothing has."""
        if told.fingerprint is not None and told.outcome is not None:
            if not self.command.fingerprint().matches(told.fingerprint):
                return Outcome(QUARANTINED, QuarantineCode.ID_REUSED, _REUSED)
            return Outcome(told.outcome, told.code, told.detail)
        # One that was there before is of an earlier message, which a person may have replayed since.
        if told.quarantine_id > self.before.quarantine_id:
            return Outcome(QUARANTINED, told.quarantine_code, told.quarantine_detail)
        return None


class Outcomes(Waiters[Sent]):
    """Tells those who wait for commands what has become of them."""

    channel = wake.OUTCOMES_CHANNEL

    def before(self, commands: Sequence[Command]) -> Mapping[Key, Told]:
        """Return what is known of commands that are to be published. It blocks.

        Raises:
            sqlalchemy.exc.DBAPIError: the database cannot answer.
        """
        with self._engine.connect() as connection:
            return awaited.look(connection, {key(command) for command in commands})

    def look(self, waiting: Sequence[Sent]) -> None:
        with self._engine.connect() as connection:
            told = awaited.look(connection, {key(one.command) for one in waiting})
        for one in waiting:
            outcome = one.judge(told[key(one.command)])
            if outcome is not None:
                one.settle(outcome)


def key(command: Command) -> Key:
    """Return how the database knows a command."""
    return command.source, command.id
