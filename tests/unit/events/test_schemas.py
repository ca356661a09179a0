"""The JSON Schemas: current, and of one mind with the parser."""

import runpy
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from events import schemas
from events.commands import COMMAND_TYPES
from events.envelope import parse
from events.errors import InvalidMessageError
from tests.unit.events import messages
from tests.unit.events.messages import encode, event, event_with
from tests.unit.events.test_commands import BAD, GOOD

COMMITTED = Path(__file__).parents[3] / schemas.FOLDER


def schema_accepts(type_: str, message: object) -> bool:
    validator = jsonschema.Draft202012Validator(schemas.schema(COMMAND_TYPES[type_]))
    return validator.is_valid(message)


def parser_accepts(message: object) -> bool:
    try:
        parse(encode(message))
    except InvalidMessageError:
        return False
    return True


def test_the_committed_schemas_are_current(tmp_path: Path) -> None:
    """When this fails, run `python -m events.schemas`."""
    schemas.main([str(tmp_path)])

    written = {path.name: path.read_text(encoding="utf-8") for path in tmp_path.iterdir()}
    committed = {path.name: path.read_text(encoding="utf-8") for path in COMMITTED.iterdir()}
    assert written == committed


def test_the_default_folder_is_in_docs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["schemas"])

    runpy.run_path(schemas.__file__, run_name="__main__")

    assert len(list((tmp_path / "docs" / "schemas").iterdir())) == len(COMMAND_TYPES)


@pytest.mark.parametrize("type_", COMMAND_TYPES)
def test_a_schema_is_a_schema_and_its_example_fits(type_: str) -> None:
    jsonschema.Draft202012Validator.check_schema(schemas.schema(COMMAND_TYPES[type_]))

    assert schema_accepts(type_, event(type_))


@pytest.mark.parametrize("type_", COMMAND_TYPES)
def test_another_types_example_does_not_fit(type_: str) -> None:
    others = [event(other) for other in messages.EXAMPLES if other != type_]

    assert not any(schema_accepts(type_, other) for other in others)


@pytest.mark.parametrize(("type_", "fields"), GOOD)
def test_schema_and_parser_accept(type_: str, fields: dict[str, Any]) -> None:
    message = event_with(type_, **fields)

    assert (schema_accepts(type_, message), parser_accepts(message)) == (True, True)


def _expressible(fields: dict[str, Any]) -> bool:
    # JSON Schema cannot tell 7.0 from 7, nor see a lone surrogate, nor count the digits of an integer.
    inexpressible = ("7.0", str(10**255), "\ud800")
    return not any(str(text) in inexpressible for member in fields.items() for text in member)


@pytest.mark.parametrize(("type_", "fields"), [case[:2] for case in BAD if _expressible(case[1])])
def test_schema_and_parser_refuse(type_: str, fields: dict[str, Any]) -> None:
    message = event_with(type_, **fields)

    assert (schema_accepts(type_, message), parser_accepts(message)) == (False, False)


@pytest.mark.parametrize(
    ("attributes", "accepted"),
    [
        ({"id": 7}, True),
        ({"id": ""}, False),
        ({"id": ...}, False),
        ({"source": 7}, False),
        ({"specversion": "0.3"}, False),
        ({"time": None}, True),
        ({"time": "2026-03-01T09:00:00+01:00"}, True),
        ({"time": "2026-03-01T09:00:00"}, False),
        ({"datacontenttype": "application/json"}, True),
        ({"datacontenttype": "text/xml"}, False),
        ({"traceparent": "00-ab"}, True),
        ({"data": ...}, False),
        ({"data": []}, False),
    ],
)
def test_schema_and_parser_agree_on_the_envelope(attributes: dict[str, Any], accepted: bool) -> None:
    message = event(**attributes)

    assert (schema_accepts(message["type"], message), parser_accepts(message)) == (accepted, accepted)
