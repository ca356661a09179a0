"""A filter as it is stored with an act."""

import json
from datetime import UTC
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from db.effect_filters import BlankFilterError, Filter

TEXTS = st.none() | st.text(min_size=1).filter(str.strip)
TIMES = st.none() | st.datetimes(timezones=st.just(UTC))
FILTERS = st.builds(
    Filter,
    states=st.lists(st.text()).map(tuple),
    kinds=st.lists(st.text()).map(tuple),
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
