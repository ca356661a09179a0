"""A filter as it is stored with an act."""

import json
from datetime import UTC
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from db.effect_filters import BlankFilterError, Filter

STORABLE = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
WORDS = st.lists(st.text(STORABLE)).map(tuple)
TEXTS = st.none() | st.text(STORABLE, min_size=1).filter(str.strip)
TIMES = st.none() | st.datetimes(timezones=st.just(UTC))
FILTERS = st.builds(
    Filter,
    states=WORDS,
    kinds=WORDS,
    user_id=TEXTS,
    course_id=TEXTS,
    exam_id=TEXTS,
    attempt=TEXTS,
    cause=TEXTS,
    error=TEXTS,
    since=TIMES,
    until=TIMES,
    subscriber=TEXTS,
)


@given(FILTERS)
def test_it_comes_back_from_json(wanted: Filter) -> None:
    stored = json.loads(json.dumps(wanted.as_json()))
    assert Filter.from_json(stored) == wanted
    assert (stored == {}) == wanted.is_empty


@given(st.sampled_from(["user_id", "attempt", "cause", "error", "subscriber"]), st.text(alphabet=" \t\n"))
def test_a_blank_text_is_refused_wherever_it_comes_from(name: str, blank: str) -> None:
    values: dict[str, Any] = {name: blank}
    said = f"{name.removesuffix('_id')} is blank"
    with pytest.raises(BlankFilterError, match=said):
        Filter(**values)
    with pytest.raises(BlankFilterError, match=said):
        Filter.from_json(values)


def test_a_member_that_is_none() -> None:
    with pytest.raises(ValueError, match="stat is no member"):
        Filter.from_json({"stat": "failed"})


@pytest.mark.parametrize(
    "document",
    [{"user_id": 7}, {"cause": {}}, {"states": "failed"}, {"kinds": [7]}, {"since": 7}, {"error": ["403"]}],
)
def test_a_member_of_another_type(document: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match="is no "):
        Filter.from_json(document)


@pytest.mark.parametrize("document", [{"error": "a\0b"}, {"error": "\ud800"}, {"kinds": ["\0"]}])
def test_a_text_that_nothing_can_have(document: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="is no text that anything could have here"):
        Filter.from_json(document)
