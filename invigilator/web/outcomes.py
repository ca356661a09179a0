"""Those who wait for the outcomes of commands."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from db import awaited, wake
from db.awaited import Told
from events.commands import Command
from events.vocabulary import QuarantineCode
from invigilator.web.documents import Attempt
from invigilator.web.waiting import Waiters, Waiting

QUARANTINED = "quarantined"
_REUSED = "source and id are those of an earlier command with another type or other data; use a new id"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a command that somebody waits for.

    Parameters:
        attempt: the one that the command names, or else the learner's at the exam, as it is now.
    """

    outcome: str
    code: str | None
    detail: str | None
    attempt: Attempt | None


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
        attempt = None if told.attempt is None else Attempt.model_validate(told.attempt)
        if told.fingerprint is not None and told.outcome is not None:
            if not self.command.fingerprint().matches(told.fingerprint):
                return Outcome(QUARANTINED, QuarantineCode.ID_REUSED, _REUSED, attempt)
            return Outcome(told.outcome, told.code, told.detail, attempt)
        # One that was there before is of an earlier message, which a person may have replayed since.
        if told.quarantine_id > self.before.quarantine_id:
            return Outcome(QUARANTINED, told.quarantine_code, told.quarantine_detail, attempt)
        return None


class Outcomes(Waiters[Sent]):
    """Tells those who wait for commands what has become of them."""

    channel = wake.OUTCOMES_CHANNEL

    def known(self, commands: Sequence[Command]) -> list[Told]:
        """Return what is known of commands now, in their order. It blocks.

        Raises:
            sqlalchemy.exc.DBAPIError: the database cannot answer.
        """
        return self._reader.ask(partial(awaited.look, commands=commands))

    def look(self, waiting: Sequence[Sent]) -> None:
        for one, told in zip(waiting, self.known([one.command for one in waiting]), strict=True):
            outcome = one.judge(told)
            if outcome is not None:
                one.settle(outcome)
