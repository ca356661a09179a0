import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.lms.http_answers import reason

LONGEST = "x" * 64


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ({"code": "requirement_unknown"}, "requirement_unknown"),
        ({"error": "no_such_course"}, "no_such_course"),
        ({"error": {"code": "no_such_course"}}, "no_such_course"),
        ({"type": "https://lms.example/problems#gone"}, "https://lms.example/problems#gone"),
        ({"code": "a", "error": "b", "type": "d"}, "a"),
        ({"type": "d", "error": "b"}, "b"),
        ({"type": "d", "error": {"code": "c"}}, "c"),
        ({"code": LONGEST}, LONGEST),
        # What cannot be used is passed over
        ({"code": 42, "error": "b"}, "b"),
        ({"code": None, "error": {"message": "no"}, "type": "d"}, "d"),
        ({"code": LONGEST + "x", "error": "b"}, "b"),
        ({"code": "no such course", "error": "b"}, "b"),
        ({"code": "", "error": {"code": "c"}}, "c"),
        ({"code": "ada@learner.example", "type": "d"}, "d"),
        ({"code": "a\n", "type": "d"}, "d"),
        ({"code": "ä", "type": "d"}, "d"),
        ({"error": {"code": 42}, "type": "d"}, "d"),
        # and may leave nothing
        ({"type": "about:blank"}, None),
        ({"code": "about:blank", "type": "about:blank"}, None),
        ({"code": ["a"], "error": ["b"], "type": {"code": "d"}}, None),
        ({"detail": "requirement_unknown", "message": "no", "title": "No"}, None),
        ({}, None),
        ([{"code": "a"}], None),
        ("a", None),
        (None, None),
    ],
)
def test_the_first_that_can_be_used_is_the_reason(document: object, expected: str | None) -> None:
    assert reason(json.dumps(document, ensure_ascii=False).encode()) == expected


@pytest.mark.parametrize(
    ("word", "kept"),
    [
        ("s3cret", False),
        ("s3cret-token", False),
        ("Bearer:s3cret-token", False),
        ("token_expired", True),
        ("a/b", True),
    ],
)
def test_no_part_of_a_secret_is_a_reason(word: str, kept: bool) -> None:
    body = json.dumps({"code": word, "type": "next"}).encode()
    assert reason(body, ["/", "s3cret-token"]) == (word if kept else "next")


@pytest.mark.parametrize(
    "body", [b"", b"requirement_unknown", b"<html>", b"\xff\xfe", b'{"code": "a"', b"[" * 60_000]
)
def test_what_is_no_json_has_none(body: bytes) -> None:
    assert reason(body) is None


@given(st.dictionaries(st.sampled_from(["code", "error", "type"]), st.text(max_size=70)))
def test_a_reason_is_one_short_word_of_the_body(document: dict[str, str]) -> None:
    found = reason(json.dumps(document).encode())
    assert found is None or (
        found in document.values() and found.isascii() and len(found.split()) == 1 and len(found) <= 64
    )
