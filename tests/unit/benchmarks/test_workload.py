"""The work that all contestants do, and the comparison of what came out."""

from collections import Counter

import pytest

from benchmarks import workload
from benchmarks.alternatives import rules
from benchmarks.running import BenchmarkError
from benchmarks.system import Result, verify

LEARNERS = 30


def wanted() -> list[Result]:
    return [(*what, values, LEARNERS) for what, values in workload.RESULTS.items()]


def test_the_right_result_is_accepted_in_any_order() -> None:
    verify(reversed(wanted()), LEARNERS)


@pytest.mark.parametrize(
    "wrong",
    [
        ("credit", "v1", "satisfied submitted", LEARNERS),
        ("credit", "v1", "submitted", LEARNERS),
        ("credit", "v1", "submitted satisfied satisfied", LEARNERS),
        ("credit", "v1", "submitted satisfied", LEARNERS - 1),
    ],
    ids=["another order", "one lost", "one doubled", "of a learner too few"],
)
def test_a_wrong_result_is_an_error(wrong: Result) -> None:
    found = [wrong if one[:2] == wrong[:2] else one for one in wanted()]

    with pytest.raises(BenchmarkError, match="the result is wrong"):
        verify(found, LEARNERS)


def test_too_much_is_an_error() -> None:
    with pytest.raises(BenchmarkError, match="Too much"):
        verify([*wanted(), ("mail", "d1", "declined", 1)], LEARNERS)


def test_the_result_has_the_numbers_that_are_documented() -> None:
    numbers = Counter[str]()
    for (what, _), values in workload.RESULTS.items():
        numbers[what] += len(values.split())

    assert numbers == {
        "history": workload.TRANSITIONS_PER_LEARNER,
        "credit": workload.CREDITS_PER_LEARNER,
        "mail": workload.MAILS_PER_LEARNER,
    }
    asked = Counter(to_status for _, to_status in (*workload.FIRST_WAVE, *workload.SECOND_WAVE))
    calls = sum(workload.CALLS.get(to_status or "", 0) * number for to_status, number in asked.items())
    assert calls == workload.CREDITS_PER_LEARNER + workload.MAILS_PER_LEARNER


def test_a_stream_has_each_learner_in_order_and_the_second_wave_late() -> None:
    stream = list(workload.ordered(range(LEARNERS), "stream"))

    assert len(stream) == LEARNERS * workload.COMMANDS_PER_LEARNER
    for learner in range(LEARNERS):
        mine = [(step.exam, step.to_status) for step in stream if step.learner == learner]
        assert mine == [*workload.FIRST_WAVE, *workload.SECOND_WAVE]
    began = [step.learner for step in stream[: stream.index(workload.Step(0, "v1", "verified"))]]
    assert set(began) == set(range(workload.LAG + 1))


def test_an_unknown_wave_is_an_error() -> None:
    with pytest.raises(ValueError, match="no such wave: third"):
        list(workload.ordered(range(1), "third"))


def test_a_statement_names_the_status_that_must_come_before() -> None:
    assert rules.statement(7, "v1", "verified") == (
        rules.UPDATE,
        {"user_id": 7, "exam_id": "v1", "to_status": "verified", "before": "submitted"},
    )
    assert rules.statement(7, "v1", None) == (rules.CREATE, {"user_id": 7, "exam_id": "v1"})
