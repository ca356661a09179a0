"""Whatever commands come, and however late: the product decides as a second implementation of the rules does."""

from dataclasses import asdict
from datetime import timedelta
from itertools import groupby, pairwise
from typing import Any
from unittest import mock

from hypothesis import given

from db import batch
from db.batch import Changes
from tests.unit.commands.model import Model
from tests.unit.commands.sessions import NOW, PROVIDER, Delivery, Session, delivery, sessions
from tests.unit.rules.strategies import policies
from worker.commands import command_types
from worker.commands.fold import Fold
from worker.commands.unit_of_work import UnitOfWork
from worker.policies import Policies
from worker.rules.moments import Clock
from worker.rules.policy import Policy


def play(
    commands: Delivery, default: Policy, provider: Policy
) -> tuple[list[tuple[str, str | None]], Changes]:
    """Return the outcomes of commands, and what is written. They are handled in one batch, without a database."""
    unit_of_work = UnitOfWork()
    fold = Fold(unit_of_work, Policies(default, {PROVIDER: provider}), instructor=True)
    clock = Clock(NOW, timedelta(days=1))
    handled = [command_types.apply(fold, command, receipt, clock) for command, receipt in commands]
    with mock.patch.object(batch, "write") as write:
        unit_of_work.write(mock.sentinel.connection)
    return [(str(one.outcome), one.code and str(one.code)) for one in handled], write.call_args.args[1]


def written(changes: Changes) -> dict[str, Any]:
    """Return what a batch writes, as a model has it."""
    steps: dict[Any, list[tuple[Any, ...]]] = {}
    for step in changes.transitions:
        by_cascade = step["effect_id"] is not None
        history = steps.setdefault(step["attempt_id"], [])
        history.append((step["from_status"], step["to_status"], step["at"], by_cascade))
    numbers = {attempt_id: number for number, attempt_id in enumerate(steps)}
    return {
        "attempts": [
            {
                **{name: row[name] for name in row.keys() - {"id", "version", "credit_owed"}},
                "external_ids": set(row["external_ids"] or ()),
                "credit_told": set(row["credit_told"] or ()),
                "history": steps[row["id"]],
            }
            for row in changes.attempts
        ],
        "effects": [
            (
                row["kind"],
                numbers[row["attempt_id"]],
                *(
                    getattr(row["payload"], name)
                    for name in ("exam_id", "user_id", "course_id", "content_id")
                ),
                getattr(row["payload"], "status", None),
            )
            for row in changes.effects
        ],
        "courses": {row["course_id"]: dict(row) for row in changes.courses},
        "exams": {row["exam_id"]: dict(row) for row in changes.exams},
        "learners": {row["user_id"]: dict(row) for row in changes.learners},
    }


@given(sessions, policies, policies)
def test_late_commands_are_decided_as_the_rules_say(
    session: Session, default: Policy, provider: Policy
) -> None:
    commands = delivery(session)
    model = Model(NOW, {None: default, PROVIDER: provider})
    expected = [model.handle(command, receipt.at) for command, receipt in commands]
    outcomes, changes = play(commands, default, provider)
    assert outcomes == expected
    assert written(changes) == {
        "attempts": [asdict(attempt) for attempt in model.attempts],
        "effects": model.effects,
        **model.rows,
    }


@given(sessions, policies)
def test_history_never_runs_backwards(session: Session, policy: Policy) -> None:
    _, changes = play(delivery(session), policy, policy)
    for attempt in changes.attempts:
        moments = [
            attempt["created_at"],
            attempt["started_at"],
            attempt["completed_at"],
            attempt["removed_at"],
        ]
        known = [moment for moment in moments if moment is not None]
        assert known == sorted(known)
    in_order = sorted(changes.transitions, key=lambda step: (step["attempt_id"], step["version"]))
    for _, steps in groupby(in_order, key=lambda step: step["attempt_id"]):
        for before, after in pairwise(steps):
            assert (after["version"], after["from_status"]) == (before["version"] + 1, before["to_status"])
            assert before["at"] <= after["at"]
            assert before["recorded_at"] <= after["recorded_at"]
