"""Messages for tests: an example of each type, and Hypothesis strategies for all types."""

import json
from datetime import UTC
from typing import Any

from hypothesis import strategies as st

from events.commands import (
    AttemptCreate,
    AttemptRemove,
    AttemptUpdateStatus,
    Command,
    CommandData,
    CourseUpsert,
    ExamUpsert,
    LearnerUpsert,
)
from events.vocabulary import IfMissing

EXAMPLES: dict[str, dict[str, Any]] = {
    "course.upsert.v1": {"course_id": "c1"},
    "exam.upsert.v1": {"exam_id": "7", "course_id": "c1", "content_id": "block-1", "exam_name": "Finals"},
    "learner.upsert.v1": {"user_id": "42", "username": "ada", "email": "ada@example.com"},
    "exam.attempt.create.v1": {"exam_id": "7", "user_id": "42"},
    "exam.attempt.update-status.v1": {"exam_id": "7", "user_id": "42", "to_status": "submitted"},
    "exam.attempt.remove.v1": {"exam_id": "7", "user_id": "42"},
}


TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
"""A `traceparent`."""


def event(type_: str = "exam.attempt.update-status.v1", **attributes: Any) -> dict[str, Any]:
    """Return a valid event of a type. `attributes` replace its own, and an attribute `...` is left out."""
    whole: dict[str, Any] = {"specversion": "1.0", "id": "1", "source": "/lms/acme", "type": type_}
    whole["data"] = EXAMPLES.get(type_)
    return without_dots(whole | attributes)


def event_with(type_: str = "exam.attempt.update-status.v1", **fields: Any) -> dict[str, Any]:
    """Return an event whose data has the given `fields` instead of its own."""
    return event(type_, data=without_dots(EXAMPLES[type_] | fields))


def without_dots(members: dict[str, Any]) -> dict[str, Any]:
    """Return the members that are not `...`."""
    return {name: value for name, value in members.items() if value is not ...}


def encode(message: object) -> bytes:
    """Return the message as a body that a sender would publish."""
    return json.dumps(message).encode()


def _text(min_size: int = 0, max_size: int = 255) -> st.SearchStrategy[str]:
    # PostgreSQL stores neither lone surrogates (category Cs) nor U+0000.
    characters = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
    return st.text(characters, min_size=min_size, max_size=max_size)


_ids = _text(1)
_words = st.from_regex(r"[a-z0-9.]{1,60}", fullmatch=True)
_names = st.none() | _text(max_size=1000)

data: st.SearchStrategy[CommandData] = st.one_of(
    st.builds(CourseUpsert, course_id=_ids, name=_names, provider=_names, gives_credit=st.booleans()),
    st.builds(
        ExamUpsert,
        exam_id=_ids,
        course_id=_ids,
        content_id=_ids,
        exam_name=_text(max_size=1000),
        is_proctored=st.booleans(),
        is_practice_exam=st.booleans(),
        is_active=st.booleans(),
        time_limit_mins=st.none() | st.integers(0, 2**31 - 1),
    ),
    st.builds(
        LearnerUpsert,
        user_id=_ids,
        username=_text(1),
        email=st.builds("{}@{}".format, _words, _words),
        full_name=_names,
        language=st.none() | st.sampled_from(["es", "es-MX", "zh-Hant-TW"]),
        time_zone=st.none() | st.sampled_from(["UTC", "Europe/Madrid", "Etc/GMT+5"]),
    ),
    st.builds(
        AttemptCreate,
        exam_id=_ids,
        user_id=_ids,
        taking_as_proctored=st.booleans(),
        external_id=st.none() | _ids,
    ),
    st.builds(
        AttemptUpdateStatus,
        exam_id=_ids,
        user_id=_ids,
        to_status=st.none() | _text(),
        cascade_effects=st.booleans(),
        if_missing=st.sampled_from(IfMissing),
    ),
    st.builds(AttemptRemove, exam_id=_ids, user_id=_ids, requested_by=_names),
)

commands: st.SearchStrategy[Command] = st.builds(
    Command,
    source=_ids,
    id=_ids,
    data=data,
    time=st.none() | st.datetimes(timezones=st.just(UTC)),
    traceparent=st.sampled_from([None, TRACE]),
)

# This text may contain lone surrogates, which JSON can escape.
any_text = st.text(st.characters())

json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | any_text,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(any_text, inner, max_size=5),
    max_leaves=10,
)
