"""Says an entry of a timeline in plain words."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from db.states import EffectState, TryResult
from db.timeline import Entry
from events.vocabulary import Outcome
from worker.kinds import EffectKind

Details = Mapping[str, Any]

ISOLATE, END_ISOLATE = "\u2068", "\u2069"
"""What keeps a text that may be right to left from turning the sentence around it (UAX 9)."""
_DIRECTIONS = dict.fromkeys([*range(0x202A, 0x202F), *range(0x2066, 0x206A), 0x200E, 0x200F, 0x061C])
_SAME_MOMENT = timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class Reference:
    """An id by which the record has an entry.

    Parameters:
        kind: of what: command, message (in quarantine), attempt, change (of an attempt), effect, act or sender.
        id: its id.
        source: of a command: who sent it, if that is known.
    """

    kind: str
    id: str
    source: str | None = None

    def __str__(self) -> str:
        """Return it as people read it, such as `command 7 of /lms`."""
        return f"{self.kind} {self.id}" + ("" if self.source is None else f" of {self.source}")


Said = tuple[str, Sequence[Reference]]
"""A sentence or two, and the ids of what they tell."""


@dataclass(frozen=True, slots=True)
class Told:
    """An entry of a timeline, for people to read.

    Parameters:
        recorded_at: when it was handled. None for what is said of the whole story.
        at: when it happened. None if that was the same moment.
        what: the entry's word.
        text: a sentence or two. Texts of others stand in it between the characters `ISOLATE` and `END_ISOLATE`.
        references: the ids by which the record has it.
    """

    recorded_at: datetime | None
    at: datetime | None
    what: str
    text: str
    references: Sequence[Reference]

    @property
    def reference(self) -> str:
        """The ids by which the record has it, as one text. Empty where it has none."""
        return ", ".join(map(str, self.references))


@dataclass(frozen=True, slots=True)
class Teller:
    """Tells the entries of one learner's timeline.

    Parameters:
        exam_names: by the ids of the exams.
    """

    exam_names: Mapping[str, str]

    def tell(self, entry: Entry) -> Told:
        """Say one entry. A word that a newer release has added is told as it is."""
        say = _SENTENCES.get(entry.what)
        text, references = (entry.what, ()) if say is None else say(self, entry.details)
        if entry.what == "pruned":
            return Told(None, None, entry.what, text, references)
        has_own_time = abs(entry.at - entry.recorded_at) >= _SAME_MOMENT
        return Told(entry.recorded_at, entry.at if has_own_time else None, entry.what, text, references)

    def exam(self, details: Details) -> str:
        """Return an exam by its id and, where that is known, its name."""
        exam_id = details["exam_id"]
        if exam_id is None:
            return "no exam"
        name = self.exam_names.get(exam_id)
        return f"exam {isolated(exam_id)}" + (f" ({isolated(name)})" if name else "")

    def command(self, details: Details) -> Said:
        asked = ASKED.get(details["type"], "A command of type {type} came.")
        parts = [
            asked.format(
                type=isolated(details["type"]),
                status=isolated(details["to_status"] or "nothing"),
                exam=self.exam(details),
            )
        ]
        named = details["attempt_code"] or details["external_id"]
        if named is not None:
            parts.append(f"It named the attempt {isolated(named)}.")
        parts.append(_OUTCOMES[details["outcome"]] + _why(details))
        return " ".join(parts), (Reference("command", details["id"], details["source"]),)

    def quarantined(self, details: Details) -> Said:
        references = [Reference("message", str(details["quarantine_id"]))]
        if details["id"] is not None:
            references.append(Reference("command", details["id"], details["source"]))
        elif details["source"] is not None:
            references.append(Reference("sender", details["source"]))
        return "A message was no valid command. It was put into quarantine" + _why(details), references

    def attempt(self, details: Details) -> Said:
        text = f"An attempt at {self.exam(details)} was {details['change']}."
        return text, (Reference("attempt", details["attempt_code"]),)

    def transition(self, details: Details) -> Said:
        before = details["from_status"]
        change = f"from {before} to {details['to_status']}" if before else f"to {details['to_status']}"
        text = f"The status of the attempt at {self.exam(details)} went {change}."
        return text, (
            Reference("attempt", details["attempt_code"]),
            Reference("change", str(details["version"])),
            Reference("command", details["command_id"], details["source"]),
        )

    def effect(self, details: Details) -> Said:
        text = f"A follow-up came to be owed: to {follow_up(details)}. {_STATES[details['state']]}"
        references = [Reference("effect", details["id"])]
        if details["attempt_code"] is not None:
            references.append(Reference("attempt", details["attempt_code"]))
        return text, references

    def try_(self, details: Details) -> Said:
        error = f": {isolated(details['error'])}" if details["error"] else ""
        text = f"Try {details['number']} to {follow_up(details)}: {_RESULTS[details['result']]}{error}."
        return text, (Reference("effect", details["effect_id"]),)

    def mail(self, details: Details) -> Said:
        text = (
            f"The mail server accepted the mail about {isolated(details['status'])} at {self.exam(details)}."
        )
        return text, (Reference("effect", details["effect_id"]),)

    def act(self, details: Details) -> Said:
        claimed = ", who said so without proof" if details["is_claimed"] else ""
        parts = [f"{isolated(details['actor'])} ({details['via']}{claimed}): {details['action']}."]
        parts += [f"{one['before']} → {one['after']}: effect {one['id']}." for one in details["effects"]]
        if details["reason"]:
            parts.append(f"Reason: {isolated(details['reason'])}")
        return " ".join(parts), (Reference("act", details["act_id"]),)

    def pruned(self, details: Details) -> Said:
        gone = [
            f"{_KEPT.get(table, isolated(table))} before {moment(datetime.fromisoformat(before))}"
            for table, before in sorted(details["before"].items())
        ]
        text = f"Some of this is no longer kept: {'; '.join(gone)}."
        return f"{text} All attempts and all changes of their status are here.", ()


_SENTENCES: Mapping[str, Callable[[Teller, Details], Said]] = {
    "command": Teller.command,
    "quarantined": Teller.quarantined,
    "attempt": Teller.attempt,
    "transition": Teller.transition,
    "effect": Teller.effect,
    "try": Teller.try_,
    "mail": Teller.mail,
    "act": Teller.act,
    "pruned": Teller.pruned,
}

ASKED = {
    "learner.upsert.v1": "The sender described the learner.",
    "exam.attempt.create.v1": "An attempt at {exam} was asked for.",
    "exam.attempt.update-status.v1": "The status {status} was asked for at {exam}.",
    "exam.attempt.remove.v1": "The removal of the attempt at {exam} was asked for.",
}
"""What a command of a learner asks for, by its type."""
_OUTCOMES = {
    Outcome.APPLIED: "It was done.",
    Outcome.UNCHANGED: "Nothing changed, because it was so already.",
    Outcome.IGNORED: "It was ignored",
    Outcome.REJECTED: "It was refused",
}
OWED: Mapping[str, str] = {
    EffectKind.SET_CREDIT_STATUS: "tell the LMS the credit status {status}",
    EffectKind.REMOVE_CREDIT_STATUS: "tell the LMS that there is no credit",
    EffectKind.CASCADE_DECLINE: "decline the course's other exams",
    EffectKind.SEND_STATUS_EMAIL: "send a mail about {status}",
    EffectKind.DELETE_STUDENT_ATTEMPT: "have the LMS reset the learner's work",
    EffectKind.DELIVER_EVENT: "tell {subscriber} of an event",
}
"""What an effect is to do, by its kind. The words follow a `to`."""
_STATES = {
    EffectState.PENDING: "It is still owed.",
    EffectState.RUNNING: "It is being tried.",
    EffectState.DONE: "It is done now.",
    EffectState.FAILED: "It has failed for good.",
    EffectState.SUPERSEDED: "A newer one took its place.",
    EffectState.CANCELLED: "It was cancelled.",
}
_RESULTS = {
    TryResult.DONE: "done",
    TryResult.LOGGED: "only written to the log, because no service is configured",
    TryResult.RETRY: "it failed for now",
    TryResult.FAILED: "it failed for good",
    TryResult.LOST: "it never reported back",
    TryResult.FOLDED: "done together with a later command",
    None: "not finished",
}
_KEPT = {
    "outcomes": "commands that were handled",
    "effects": "follow-ups, with their tries, that ended",
    "events": "events",
}


def follow_up(details: Details) -> str:
    """Return what an effect is to do, in a few words that follow a `to`."""
    words: str = OWED.get(details["kind"], details["kind"])
    return words.format(
        status=isolated(details["status"] or ""), subscriber=isolated(details["subscriber"] or "")
    )


def isolated(text: str) -> str:
    """Return a text of others, such as a name, so that its direction does not reach what stands around it."""
    return f"{ISOLATE}{text.translate(_DIRECTIONS)}{END_ISOLATE}"


def plain(text: str) -> str:
    """Return a text without the characters that `isolated` adds."""
    return text.translate({ord(ISOLATE): None, ord(END_ISOLATE): None})


def moment(at: datetime) -> str:
    """Return a moment for people, in UTC.

    Example:
        >>> moment(datetime(2026, 3, 1, 9, 30, tzinfo=UTC))
        '2026-03-01 09:30:00 UTC'
    """
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def _why(details: Details) -> str:
    if details["code"] is None:
        return ""
    return f" ({details['code']}): {isolated(details['detail'] or '')}."
