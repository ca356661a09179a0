"""The summary: its tables show the given numbers."""

from collections import Counter
from io import StringIO

import pytest
from rich.console import Console

from invigilator.demo.expected import expect
from invigilator.demo.reference import Result
from invigilator.demo.stories import ExamRole
from invigilator.demo.summary import Numbers, show_reconciliation, show_summary
from tests.unit.demo.sessions import WHO, session
from worker.policies import Policies


@pytest.fixture
def console() -> Console:
    return Console(file=StringIO(), width=120)


def printed(console: Console) -> str:
    assert isinstance(console.file, StringIO)
    return console.file.getvalue()


def test_summary(console: Console) -> None:
    snapshot = expect(session(*WHO.at(ExamRole.MIDTERM).sit("verified")), Policies(), instructor=True)
    numbers = Numbers(
        statuses={"verified": 1},
        effects={("set_credit_status", "done"): 1, ("set_credit_status", "superseded"): 1},
        tries={"done": 4, "retry": 1},
        calls=Counter({Result.APPLIED: 2, Result.FAILED: 1, Result.LATE: 7}),
        mails=3,
    )
    show_summary(console, snapshot, numbers)
    rows = [[cell.strip() for cell in line.strip("│").split("│")] for line in printed(console).splitlines()]
    for row in (
        ["verified", "1"],
        ["set_credit_status", "1", "1"],
        ["retry", "1"],
        ["distinct", "2"],
        ["duplicates", "1"],
        ["made", "10"],
        ["late ones dropped", "7"],
    ):
        assert row in rows


def test_reconciliation_lists_the_first_differences(console: Console) -> None:
    show_reconciliation(console, 240, 960, [f"credit, [{number}]" for number in range(13)])
    lines = printed(console).splitlines()
    assert lines[0] == "reconciliation: 240 learners, 960 credit requirements compared: 13 differences"
    assert "  credit, [9]" in lines
    assert lines[-1] == "  and 3 more"


def test_reconciliation_without_differences(console: Console) -> None:
    show_reconciliation(console, 240, 960, [])
    assert "240 learners, 960 credit requirements compared: 0 differences" in printed(console)
