"""The preset `edx-proctoring-6`: the observed decisions, and the sentences that they follow.

A line of the sample is one decision of edx-proctoring 6.1.4. Each sentence here says one field of the answer as a
function of the request. The sample shows that the sentences are true of edx-proctoring. Then they are asserted of
every combination, seen or not.
"""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from events.vocabulary import COMPLETED, INCOMPLETE, Outcome, OutcomeCode, Status
from worker.rules.decisions import Decision, decide
from worker.rules.policy import PRESETS
from worker.rules.values import Attempt

SAMPLE = Path(__file__).parents[2] / "data" / "edx-proctoring-6-sample.jsonl"
OBSERVED = [json.loads(line) for line in SAMPLE.read_text().splitlines()]
EDX = PRESETS["edx-proctoring-6"]
EARLIER = datetime(2026, 2, 1, 9, tzinfo=UTC)


class Request(NamedTuple):
    """One combination of what a decision depends on."""

    before: Status
    asked: Status
    proctored: bool
    sample: bool
    started: bool
    cascade_effects: bool = True
    practice_exam: bool = False

    def decision(self) -> Decision:
        attempt = Attempt(
            self.before,
            taking_as_proctored=self.proctored,
            is_sample_attempt=self.sample,
            started_at=EARLIER if self.started else None,
        )
        return decide(
            attempt,
            self.asked,
            EDX,
            cascade_effects=self.cascade_effects,
            is_practice_exam=self.practice_exam,
        )


def request_of(line: dict[str, Any]) -> Request:
    return Request(
        Status(line["from_status"]),
        Status(line["to_status"]),
        line["taking_as_proctored"],
        line["is_sample_attempt"],
        line["started_at_preset"],
    )


def everything() -> Iterator[Request]:
    flags = (False, True)
    for before, asked in product(Status, Status):
        for values in product(flags, repeat=5):
            yield Request(before, asked, *values)


# --- the sentences ---------------------------------------------------------------------------------------

RUNNING = {"started", "ready_to_submit"}
ENTRY = {"created", "download_software_clicked", "ready_to_start"}
CREDIT = {
    "verified": "satisfied",
    "submitted": "submitted",
    "declined": "declined",
    "rejected": "failed",
    "error": "failed",
}
MAILED = {"submitted", "verified", "rejected"}


def refused(request: Request) -> bool:
    """A completed attempt does not become incomplete. Everything else is applied, repetition included."""
    return request.before in COMPLETED and request.asked in INCOMPLETE


def status(request: Request) -> str:
    """A time-out is a submission, and so is entering an exam that runs. Otherwise the request is followed."""
    if refused(request):
        return request.before
    entered_again = request.before in RUNNING and request.asked in ENTRY
    return "submitted" if request.asked == "timed_out" or entered_again else request.asked


def expected(request: Request) -> dict[str, Any]:
    if refused(request):
        return dict(outcome="rejected", status=request.before, **_nothing())
    after = status(request)
    cascade = after == "declined" and request.cascade_effects and not request.practice_exam
    still_proctored = request.proctored and not cascade
    return {
        "outcome": "applied",
        "status": after,
        "credit": CREDIT.get(after),
        "cascade": cascade,
        "email": after in MAILED and still_proctored and not request.sample,
        "set_started_at": after == "started" and not request.started,
        "set_completed_at": after == "submitted",
        "clear_proctoring": cascade,
    }


def _nothing() -> dict[str, Any]:
    flags = ("cascade", "email", "set_started_at", "set_completed_at", "clear_proctoring")
    return {"credit": None, **dict.fromkeys(flags, False)}


# --- the tests -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("line", OBSERVED, ids=lambda line: f"{line['from_status']}-{line['to_status']}")
def test_an_observed_decision(line: dict[str, Any]) -> None:
    decision = request_of(line).decision()
    observed: dict[str, Any] = line["expect"]
    assert {name: getattr(decision, name) for name in observed} == observed


def test_the_sentences_are_true_of_what_was_observed() -> None:
    assert len(OBSERVED) == 135
    for line in OBSERVED:
        said = expected(request_of(line))
        assert {name: said[name] for name in line["expect"]} == line["expect"]


def test_the_sentences_are_true_of_every_combination() -> None:
    for request in everything():
        decision, said = request.decision(), expected(request)
        assert {name: getattr(decision, name) for name in said} == said, request
        illegal = decision.outcome is Outcome.REJECTED
        assert decision.code == (OutcomeCode.ILLEGAL_TRANSITION if illegal else None)
