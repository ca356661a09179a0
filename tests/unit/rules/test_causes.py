"""Which failures have one cause."""

from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.rules.causes import MAX_REASON, find_cause

KIND = "set_credit_status"
NUMBERS = st.integers(0, 10**9).map(str)
IDS = st.one_of(
    NUMBERS,
    st.uuids().map(str).filter(lambda text: any(map(str.isdigit, text))),
    st.builds("course-v1:edX+Demo{}".format, NUMBERS),
    st.builds("u{}@example.org".format, NUMBERS),
    st.builds("block-v1:edX+Demo+type@sequential+block@{}".format, NUMBERS),
)
STATUSES = st.sampled_from([400, 403, 404, 409, 422, 500, 503])
CODES = st.sampled_from(
    ["E12", "E13", "no-such-course", "https://lms.example/problems/4711", "5.1.1", "5.1.2"]
)


def _text(status: int, code: str, one_id: str, quoted: str) -> str:
    return (
        f"LMS answered {status} to POST /credit/{one_id}/x?u={quoted}: learner '{quoted}', {one_id} ({code})"
    )


@given(status=STATUSES, code=CODES, ids=st.tuples(IDS, IDS, NUMBERS, NUMBERS))
def test_failures_that_differ_in_numbers_and_ids_have_one_cause(
    status: int, code: str, ids: tuple[str, str, str, str]
) -> None:
    one, other = (
        find_cause(KIND, _text(status, code, ids[n], ids[n + 2]), status=status, codes=[code]) for n in (0, 1)
    )
    assert one == other


@given(ids=st.tuples(IDS, NUMBERS), statuses=st.tuples(STATUSES, STATUSES), codes=st.tuples(CODES, CODES))
def test_status_and_code_keep_causes_apart(
    ids: tuple[str, str], statuses: tuple[int, int], codes: tuple[str, str]
) -> None:
    one, other = (
        find_cause(KIND, _text(status, code, *ids), status=status, codes=[code])
        for status, code in zip(statuses, codes, strict=True)
    )
    assert (one.id == other.id) == ((statuses[0], codes[0]) == (statuses[1], codes[1]))
    assert str(statuses[0]) in one.reason
    assert codes[0] in one.reason


def test_kind_exception_and_words_keep_causes_apart() -> None:
    causes = [
        find_cause(KIND, "no answer (ConnectError)", exception="Unavailable"),
        find_cause("send_status_email", "no answer (ConnectError)", exception="Unavailable"),
        find_cause(KIND, "no answer (ConnectError)", exception="NotCalled"),
        find_cause(KIND, "no answer (ConnectError)"),
        find_cause(KIND, "no answer (ReadError)", exception="Unavailable"),
    ]
    assert len({cause.id for cause in causes}) == len(causes)


@pytest.mark.parametrize(
    ("text", "codes", "reason"),
    [
        ("LMS took longer than 30 s", [], "LMS took longer than … s"),
        ("webhook.lms2 answered 500", ["webhook.lms2"], "webhook.lms2 answered 500"),
        (f"its exam is {UUID(int=7)}.", [], "its exam is …."),
        ('no field "exam 7"', [], "no field …"),
        ("refused the mail (500 5.1.1)", ["5.1.1"], "refused the mail (500 5.1.1)"),
        (
            "unexpected IntegrityError 23505 uq_a1",
            ["23505", "uq_a1"],
            "unexpected IntegrityError 23505 uq_a1",
        ),
        ("answered 500, then 500: twice", [], "answered 500, then …: twice"),
    ],
)
def test_what_the_reason_says(text: str, codes: list[str], reason: str) -> None:
    assert find_cause(KIND, text, status=500, codes=codes).reason == reason


@given(st.text())
def test_every_text_has_a_cause(text: str) -> None:
    found = find_cause(KIND, text)
    assert found == find_cause(KIND, text)
    assert len(found.reason) <= MAX_REASON
