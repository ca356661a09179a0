"""The comparison of snapshots: it finds every random change of a correct snapshot."""

import random
from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

import pytest

from invigilator.demo.expected import expect
from invigilator.demo.session import generate
from invigilator.demo.snapshot import AttemptView, Snapshot, differences, outcome_text
from tests.unit.demo.sessions import START
from worker.policies import Policies

PARTS = [field.name for field in fields(Snapshot)]


@pytest.fixture(scope="module")
def good() -> Snapshot:
    snapshot = expect(generate("r1", seed=7, start=START, learners=40), Policies(), instructor=True)
    return replace(snapshot, unfinished={"send_status_email failed": 1})  # so that every part has something


def damaged(value: Any) -> Any:
    match value:
        case int():
            return value + 1
        case str():
            return f"{value}?"
        case AttemptView():
            return replace(value, taking_as_proctored=not value.taking_as_proctored)
        case _:
            return value[:-1]


def test_equal_pictures_do_not_differ(good: Snapshot) -> None:
    copies: dict[str, Any] = {name: dict(getattr(good, name)) for name in PARTS}
    assert differences(good, Snapshot(**copies)) == []


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("damage", ["lost", "changed", "extra"])
@pytest.mark.parametrize("seed", range(5))
def test_one_difference_is_found_and_named(good: Snapshot, part: str, damage: str, seed: int) -> None:
    chance = random.Random(seed)
    was: Mapping[Any, Any] = getattr(good, part)
    key = chance.choice(sorted(was, key=str))
    now = dict(was)
    if damage == "lost":
        del now[key]
    elif damage == "changed":
        now[key] = damaged(was[key])
    else:
        now["someone else"] = was[key]
    (line,) = differences(good, replace(good, **{part: now}))
    assert line.startswith(f"{part}, ")
    assert ("found nothing" in line) == (damage == "lost")
    assert ("expected nothing" in line) == (damage == "extra")


def test_a_line_says_who_what_and_how() -> None:
    nothing: dict[str, Any] = {name: {} for name in PARTS}
    must, found = {("ada", "midterm"): "satisfied"}, {("ada", "midterm"): "failed"}
    assert differences(Snapshot(**{**nothing, "credit": must}), Snapshot(**{**nothing, "credit": found})) == [
        "credit, ada · midterm: expected satisfied, found failed"
    ]


@pytest.mark.parametrize(
    ("outcome", "code", "text"),
    [
        ("applied", None, "applied"),
        ("rejected", "exam_not_found", "rejected exam_not_found"),
        (None, None, "no outcome"),
    ],
)
def test_outcomes_as_text(outcome: str | None, code: str | None, text: str) -> None:
    assert outcome_text(outcome, code) == text
