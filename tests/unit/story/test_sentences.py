"""What is said of each entry, in plain words."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from db.states import EffectState, TryResult
from db.timeline import Entry, Position
from events.commands import COMMAND_TYPES, LearnerData
from events.vocabulary import Outcome
from invigilator.story import sentences
from invigilator.story.sentences import Teller, isolated, plain
from worker.kinds import EffectKind

NOW = datetime(2026, 3, 1, 9, 30, tzinfo=UTC)
TELLER = Teller({"7": "Mechanics"})
COMMAND = {
    "source": "/lms",
    "id": "c1",
    "type": "exam.attempt.update-status.v1",
    "outcome": "applied",
    "code": None,
    "detail": None,
    "exam_id": "7",
    "to_status": "submitted",
    "attempt_code": None,
    "external_id": None,
}
EFFECT = {
    "id": "e1",
    "kind": "send_status_email",
    "state": "done",
    "status": "submitted",
    "subscriber": None,
    "attempt_code": "a1",
}
TRY = {**EFFECT, "effect_id": "e1", "number": 2, "result": "retry", "error": "503"}
ACT = {
    "act_id": "x1",
    "action": "retry",
    "actor": "ops@host",
    "is_claimed": True,
    "via": "command line",
    "reason": "it is back",
    "effects": [{"id": "e1", "before": "failed", "after": "pending"}],
}


def told(what: str, details: dict[str, Any]) -> tuple[str, str]:
    one = TELLER.tell(Entry(Position(NOW, "k"), NOW, what, details))
    return plain(one.text), one.reference


@pytest.mark.parametrize(
    ("what", "details", "expected"),
    [
        (
            "command",
            COMMAND,
            ("The status submitted was asked for at exam 7 (Mechanics). It was done.", "command c1 of /lms"),
        ),
        (
            "command",
            COMMAND
            | {"outcome": "rejected", "code": "stale_attempt", "detail": "another", "external_id": "x"},
            (
                (
                    "The status submitted was asked for at exam 7 (Mechanics). It named the attempt x. "
                    "It was refused (stale_attempt): another."
                ),
                "command c1 of /lms",
            ),
        ),
        (
            "quarantined",
            {"source": None, "id": None, "code": "not_json", "detail": "is none", "quarantine_id": 3},
            (
                "A message was no valid command. It was put into quarantine (not_json): is none.",
                "message 3",
            ),
        ),
        (
            "quarantined",
            {"source": "/lms", "id": "c1", "code": "not_json", "detail": "is none", "quarantine_id": 3},
            (
                "A message was no valid command. It was put into quarantine (not_json): is none.",
                "message 3, command c1 of /lms",
            ),
        ),
        (
            "attempt",
            {"attempt_code": "a1", "exam_id": "7", "change": "created"},
            ("An attempt at exam 7 (Mechanics) was created.", "attempt a1"),
        ),
        (
            "transition",
            COMMAND | {"attempt_code": "a1", "from_status": "created", "version": 2, "command_id": "c1"},
            (
                "The status of the attempt at exam 7 (Mechanics) went from created to submitted.",
                "attempt a1, change 2, command c1 of /lms",
            ),
        ),
        (
            "effect",
            EFFECT,
            (
                "A follow-up came to be owed: to send a mail about submitted. It is done now.",
                "effect e1, attempt a1",
            ),
        ),
        ("try", TRY, ("Try 2 to send a mail about submitted: it failed for now: 503.", "effect e1")),
        (
            "act",
            ACT,
            (
                (
                    "ops@host (command line, who said so without proof): retry. failed → pending: effect e1. "
                    "Reason: it is back"
                ),
                "act x1",
            ),
        ),
        (
            "pruned",
            {"before": {"outcomes": "2026-02-01T00:00:00.000000Z"}},
            (
                (
                    "Some of this is no longer kept: commands that were handled before 2026-02-01 00:00:00 UTC. "
                    "All attempts and all changes of their status are here."
                ),
                "",
            ),
        ),
        ("something new", {}, ("something new", "")),
    ],
)
def test_an_entry_is_a_sentence(what: str, details: dict[str, Any], expected: tuple[str, str]) -> None:
    assert told(what, details) == expected


@pytest.mark.parametrize("outcome", Outcome)
def test_every_outcome_has_words(outcome: Outcome) -> None:
    assert told("command", COMMAND | {"outcome": outcome})


def test_every_command_of_a_learner_has_words() -> None:
    of_learners = {name for name, model in COMMAND_TYPES.items() if issubclass(model, LearnerData)}
    assert of_learners == sentences.ASKED.keys()
    assert told("command", COMMAND | {"type": "exam.new.v1"})[0].startswith(
        "A command of type exam.new.v1 came."
    )


@pytest.mark.parametrize("kind", EffectKind)
def test_every_kind_has_words(kind: EffectKind) -> None:
    assert kind in sentences.OWED
    assert told("effect", EFFECT | {"kind": kind})


@pytest.mark.parametrize("state", EffectState)
def test_every_state_has_words(state: EffectState) -> None:
    assert told("effect", EFFECT | {"state": state})


@pytest.mark.parametrize("result", [None, *TryResult])
def test_every_result_has_words(result: TryResult | None) -> None:
    assert told("try", TRY | {"result": result})


def test_the_own_time_is_told_where_it_differs() -> None:
    details = {"attempt_code": "a1", "exam_id": "7", "change": "created"}
    late = Entry(Position(NOW, "k"), NOW - timedelta(hours=1), "attempt", details)
    assert TELLER.tell(late).at == NOW - timedelta(hours=1)
    assert TELLER.tell(Entry(Position(NOW, "k"), NOW, "attempt", details)).at is None


def test_the_direction_of_a_text_does_not_reach_beyond_it() -> None:
    assert isolated("\u202eabc\u2069") == "\u2068abc\u2069"
    assert plain(isolated("abc")) == "abc"
