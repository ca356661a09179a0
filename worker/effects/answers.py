"""What a worker says about an effect, in Flower and in the log, with the ids that lead to everything else."""

from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

from db.effects import Claim
from db.standing import Standing
from db.states import EffectState
from worker.kind_entry import UnreadablePayloadError, quoted
from worker.kinds import EffectKind

_ENDED = {
    EffectState.DONE: "already done",
    EffectState.FAILED: "failed: use effects retry",
    EffectState.SUPERSEDED: "overtaken by a newer effect on its target",
    EffectState.CANCELLED: "cancelled: use effects retry",
}
BUSY = "every slot of the service is taken"


@dataclass(frozen=True, slots=True)
class Answer:
    """What a worker did with an effect. `str()` gives the whole line."""

    text: str
    trail: str
    """The ids of the effect and of its command."""
    is_done: bool
    """Whether the effect was carried out. Otherwise there was nothing to do, and `text` says why."""

    def __str__(self) -> str:
        return f"{self.text} · {self.trail}"


@dataclass(frozen=True, slots=True)
class About:
    """A try that has begun, and the parts that every line about it has: which effect it is, and the ids."""

    claim: Claim
    label: str
    trail: str

    @classmethod
    def claimed(cls, claim: Claim) -> "About":
        """Describe a try that has begun."""
        shown = label(claim.kind, claim.payload, claim.number)
        return cls(claim, shown, ids(claim.id, claim.source, claim.command_id))

    def says(self, what: str) -> str:
        """Make a line about the try."""
        return f"{self.label}: {what} · {self.trail}"

    def done(self, what: str = "done") -> Answer:
        """Make the answer for a try that was carried out."""
        return Answer(f"{self.label}: {what}", self.trail, is_done=True)


def label(kind: str, stored: object, number: int) -> str:
    """What a person reads in Flower of a try, such as `credit submitted · exam 7 · learner 42 · try 3`.

    Parameters:
        kind: the kind's name.
        stored: the payload, as it is stored.
        number: of the try, from 1.
    """
    return f"{subject(kind, stored)} · try {number}"


def subject(kind: str, stored: object) -> str:
    """What an effect is about, such as `credit submitted · exam 7 · learner 42`.

    It is the kind's name alone if this release does not know the kind, or cannot read the payload.
    """
    try:
        entry = EffectKind(kind).entry
        return entry.subject(entry.read(stored))
    except (ValueError, UnreadablePayloadError):
        return kind


def ids(effect_id: UUID, source: str, command_id: str) -> str:
    """Name an effect and the command from which it follows."""
    return f"effect {effect_id} · {command(source, command_id)}"


def command(source: str, command_id: str) -> str:
    """Name a command."""
    return f"command {quoted(source)} {quoted(command_id)}"


def nothing_to_do(effect_id: UUID, standing: Standing | None, why: str) -> Answer:
    """Make the answer for an effect that was left alone."""
    if standing is None:
        return Answer(why, f"effect {effect_id}", is_done=False)
    shown = subject(standing.kind, standing.payload)
    trail = f"{shown} · {ids(effect_id, standing.source, standing.command_id)}"
    return Answer(why, trail, is_done=False)


def why_not_claimed(kind: str, standing: Standing | None) -> str:
    """Say why a worker that was asked to run an effect of this kind has left it alone."""
    if standing is None:
        return "there is no such effect"
    if standing.kind != kind:
        return f"it is no {kind} but a {standing.kind}"
    if standing.state in _ENDED:
        return _ENDED[standing.state]
    return _why_not_now(standing)


def _why_not_now(standing: Standing) -> str:
    if standing.is_taken:
        return "another has it"
    if standing.paused_since is not None:
        return paused(standing.paused_until, standing.pause_reason)
    if standing.ahead is not None:
        return f"waits for an older one, effect {standing.ahead}"
    if standing.off_since is not None:
        return f"its webhook is off since {_shown(standing.off_since)}: use webhooks on"
    if standing.circuit_open:
        return (
            f"circuit open since {_shown(standing.circuit_since)}, no call before "
            f"{_shown(standing.circuit_until)}"
        )
    if not standing.is_due:
        return f"not due before {_shown(standing.due_at)}"
    if standing.is_blocked:
        return "another has its target, which changes one at a time"
    return "another has it"  # another worker is about to claim it


def paused(until: datetime | None, reason: str | None) -> str:
    """Say that a kind is paused, until when, and why.

    Parameters:
        until: None for a pause that lasts until a person ends it.
        reason: None where the person gave none.
    """
    end = "a person resumes it" if until is None else _shown(until)
    return f"paused until {end}" + (f": {reason}" if reason else "")


def _shown(moment: datetime | None) -> str:
    assert moment is not None, "the circuit is open, so it has both"
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
