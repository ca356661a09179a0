"""The observed cases: the rules decide as the replaced systems did."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from events.vocabulary import Outcome, Status
from worker.rules.cascade import siblings_to_decline
from worker.rules.decisions import decide, evolve
from worker.rules.policy import PRESETS
from worker.rules.policy_settings import policy_from
from worker.rules.values import Attempt, Exam

CASES = [
    json.loads(line)
    for line in (Path(__file__).parents[2] / "data" / "decisions-sample.jsonl").read_text().splitlines()
]
NOW = datetime(2026, 3, 1, 9, tzinfo=UTC)
EARLIER = datetime(2026, 2, 1, 9, tzinfo=UTC)


def exam(name: str, *, practice: bool = False, proctored: bool = True, active: bool = True) -> Exam:
    return Exam(name, "course", f"content-{name}", proctored, practice, active)


EXAMS = [
    exam("A"),
    exam("B"),
    exam("C"),
    exam("D"),
    exam("practice", practice=True),
    exam("timed", proctored=False),
    exam("inactive", active=False),
]


def new_receipt(value: datetime | None) -> str:
    return {None: "unset", EARLIER: "preset", NOW: "stamped"}[value]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['from_status']}-{case['to_status']}")
def test_observed_case(case: dict[str, Any]) -> None:
    # Given the observed attempt and policy
    policy = PRESETS["platform" if case["example"] == 2 else "provider"]
    if case["allow_timed_out"] != "absent":
        policy = policy_from({"allow_timed_out_state": case["allow_timed_out"]}, policy)
    attempt = Attempt(
        Status(case["from_status"]),
        taking_as_proctored=case["taking_as_proctored"],
        is_sample_attempt=case["is_sample_attempt"],
        external_id="EXT-A",
        started_at=EARLIER if case["started_at_preset"] else None,
    )
    siblings = {"C": Attempt(Status.CREATED), "D": Attempt(Status.SUBMITTED), "A": attempt}
    # When the change is decided
    decision = decide(attempt, case["to_status"], policy, cascade_effects=case["cascade_effects"])
    after = evolve(attempt, decision, NOW)
    declined = siblings_to_decline("course", "content-A", EXAMS, siblings) if decision.cascade else []
    # Then it is what was observed
    assert {
        "outcome": decision.outcome,
        "status": after.status,
        "credit": [decision.credit] if decision.credit else [],
        "email": decision.email,
        "cascade": [sibling.exam_id for sibling in declined],
        "started_at": new_receipt(after.started_at),
        "completed_at": new_receipt(after.completed_at),
        "taking_as_proctored": after.taking_as_proctored,
        "external_id": after.external_id,
    } == case["expect"]
    assert decision.outcome is Outcome.APPLIED or after == attempt
