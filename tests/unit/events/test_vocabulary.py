"""The words of the wire."""

import string

import pytest

from events.vocabulary import DetailedCode, OutcomeCode


@pytest.mark.parametrize("code", OutcomeCode)
def test_each_outcome_code_has_its_detail(code: OutcomeCode) -> None:
    assert code.detail
    assert OutcomeCode(str(code)) is code
    names = {name for _, name, _, _ in string.Formatter().parse(code.detail) if name}
    values = {
        OutcomeCode.ILLEGAL_TRANSITION: {"before", "to_status"},
        OutcomeCode.PRECONDITION_FAILED: {"before"},
        OutcomeCode.VERDICT_PROTECTED: {"before"},
    }
    assert names == values.get(code, set())


def test_a_code_without_its_detail_is_refused() -> None:
    with pytest.raises(TypeError, match=r"^Codes.LATE: write its detail beside it$"):

        class Codes(DetailedCode):
            EARLY = "early", "it came too early"
            LATE = "late"
