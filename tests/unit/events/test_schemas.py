"""The JSON Schemas: they are up to date and accept what the worker accepts."""

import json
import runpy
import sys
from calendar import isleap
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from events import schemas
from events.commands import COMMAND_TYPES
from events.envelope import CONTENT_TYPE, parse
from events.errors import InvalidMessageError
from events.vocabulary import QuarantineCode, Status
from tests.hostile import CORPUS, Hostile
from tests.unit.events import corpus, messages
from tests.unit.events.messages import encode, event, event_with
from tests.unit.events.test_commands import BAD, GOOD

UPDATE = "exam.attempt.update-status.v1"
COMMITTED = Path(__file__).parents[3] / schemas.FOLDER


Validator = jsonschema.Draft202012Validator
SEEN = (None, QuarantineCode.NOT_CLOUDEVENT, QuarantineCode.UNKNOWN_TYPE, QuarantineCode.INVALID_DATA)
"""The results of parsing a small JSON message: None for a command, or the quarantine code."""
VALIDATORS = {name: Validator(schemas.schema(model)) for name, model in COMMAND_TYPES.items()}


def schema_accepts(type_: str, message: object) -> bool:
    return VALIDATORS[type_].is_valid(message)


def worker_accepts(type_: str, body: bytes) -> bool:
    """Return whether the message is a command of this type and its status exists."""
    try:
        command = parse(body)
    except InvalidMessageError:
        return False
    return command.type == type_ and getattr(command.data, "to_status", Status.CREATED) in [*Status]


def agreed(type_: str, message: object) -> bool:
    """Check that the schema and the worker agree on a message. Return whether they accept it."""
    body = message if isinstance(message, bytes) else encode(message)
    schema, worker = schema_accepts(type_, json.loads(body)), worker_accepts(type_, body)
    assert schema == worker, f"schema: {schema}, worker: {worker}: {body[:300]!r}"
    return schema


def test_the_committed_schemas_are_current(tmp_path: Path) -> None:
    """Run `python -m events.schemas` when this fails."""
    schemas.main([str(tmp_path)])

    written = {path.name: path.read_text(encoding="utf-8") for path in tmp_path.iterdir()}
    committed = {path.name: path.read_text(encoding="utf-8") for path in COMMITTED.iterdir()}
    assert written == committed


def test_the_default_folder_is_in_docs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["schemas"])
    monkeypatch.delitem(sys.modules, schemas.__name__)

    runpy.run_module(schemas.__name__, run_name="__main__")

    assert len(list((tmp_path / "docs" / "schemas").iterdir())) == len(COMMAND_TYPES)


@pytest.mark.parametrize("type_", COMMAND_TYPES)
def test_a_schema_is_a_schema_and_its_example_fits(type_: str) -> None:
    jsonschema.Draft202012Validator.check_schema(schemas.schema(COMMAND_TYPES[type_]))

    assert schema_accepts(type_, event(type_))


@pytest.mark.parametrize("type_", COMMAND_TYPES)
def test_another_types_example_does_not_fit(type_: str) -> None:
    others = [event(other) for other in messages.EXAMPLES if other != type_]

    assert not any(schema_accepts(type_, other) for other in others)


@pytest.mark.no_cover  # 12,400 messages, and others cover the same code
def test_schema_and_worker_agree_on_the_corpus() -> None:
    # Given every attribute and field with everything that it may be, or may not
    # Then each type's schema says of each what becomes of it
    accepted = [agreed(*case) for case in corpus.messages()]
    assert len(accepted) / 10 < sum(accepted) < len(accepted) / 2


@pytest.mark.parametrize(
    "one",
    [one for one in CORPUS if one.code in SEEN and one.content_type == CONTENT_TYPE],
    ids=lambda one: one.name,
)
def test_schema_and_worker_agree_on_what_is_hostile(one: Hostile) -> None:
    for type_ in COMMAND_TYPES:
        agreed(type_, one.body)


@pytest.mark.parametrize(("type_", "fields"), GOOD + [case[:2] for case in BAD])
def test_schema_and_worker_agree(type_: str, fields: dict[str, Any]) -> None:
    agreed(type_, event_with(type_, **fields))


@pytest.mark.parametrize(
    ("fields", "accepted"),
    [
        ({"to_status": "verified"}, True),
        ({"to_status": "Verified"}, False),
        ({"to_status": None}, False),
        ({"exam_id": 7}, True),
        ({"exam_id": 7.0}, False),
        ({"exam_id": True}, False),
        ({"exam_id": "\ud800"}, False),
    ],
)
def test_a_schema_is_as_strict_as_it_can_be(fields: dict[str, Any], accepted: bool) -> None:
    assert schema_accepts(UPDATE, event_with(UPDATE, **fields)) is accepted


type_names = st.sampled_from(sorted(COMMAND_TYPES))


@given(type_names, messages.any_text | st.sampled_from(sorted(event())), messages.json_values)
def test_schema_and_worker_agree_on_any_attribute(type_: str, name: str, value: object) -> None:
    assume(is_json(value))

    agreed(type_, event(type_) | {name: value})


@given(type_names, st.data())
def test_schema_and_worker_agree_on_any_fields(type_: str, draw: st.DataObject) -> None:
    names = st.sampled_from(sorted(COMMAND_TYPES[type_].model_fields)) | messages.any_text
    fields = draw.draw(st.dictionaries(names, messages.json_values, max_size=4))
    assume(is_json(fields))

    agreed(type_, event_with(type_, **fields))


def is_json(value: object) -> bool:
    try:
        json.dumps(value, allow_nan=False)
    except ValueError:
        return False
    return True


two_digits = st.integers(0, 61).map("{:02}".format)
years = st.sampled_from(["0000", "0001", "0400", "1900", "2023", "2024", "9999"])
days = st.builds("{}-{}-{}".format, years, two_digits, two_digits)
clocks = st.builds("{}:{}:{}".format, two_digits, two_digits, two_digits)
offsets = st.sampled_from("Zz") | st.builds("{}{}:{}".format, st.sampled_from("+-"), two_digits, two_digits)


@given(st.builds("{}T{}{}{}".format, days, clocks, st.sampled_from(["", ".0", ".000001"]), offsets))
def test_schema_and_worker_agree_on_any_time(time: str) -> None:
    agreed(UPDATE, event(UPDATE, time=time))


@pytest.mark.parametrize("year", ["0100", "2000", "2023", "2024"])
def test_schema_and_worker_agree_on_every_day(year: str) -> None:
    times = [f"{year}-{month:02}-{day:02}T09:00:00Z" for month in range(14) for day in range(33)]

    accepted = [agreed(UPDATE, event(UPDATE, time=time)) for time in times]
    assert sum(accepted) == 365 + isleap(int(year))
