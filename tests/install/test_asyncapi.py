"""docs/asyncapi.yaml is AsyncAPI, by the schema that AsyncAPI publishes."""

import json
from typing import Any

import jsonschema
import pytest

from tests.described import DOCUMENT
from tests.engines import unavailable
from tests.programs import run_program

SPECS = "@asyncapi/specs@6.11.1"


@pytest.fixture(scope="module")
def asyncapi(tmp_path_factory: pytest.TempPathFactory) -> jsonschema.Draft7Validator:
    """What validates AsyncAPI documents of the version that ours says it is."""
    folder = tmp_path_factory.mktemp("asyncapi")
    install = ("npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", SPECS)
    installed = run_program(*install, folder=folder)
    if installed.returncode != 0:
        unavailable(f"npm install failed: {installed.stderr[-500:]}")
    schema = folder / "node_modules/@asyncapi/specs/schemas" / f"{DOCUMENT['asyncapi']}.json"
    return jsonschema.Draft7Validator(json.loads(schema.read_text()))


def test_the_document_is_valid(asyncapi: jsonschema.Draft7Validator) -> None:
    asyncapi.validate(DOCUMENT)


@pytest.mark.parametrize(
    ("place", "wrong"),
    [
        (("info", "version"), 1),
        (("channels", "commands", "bindings", "amqp", "is"), "list"),
        (("channels", "commands", "messages", "signed"), {"payload": 7}),
        (("operations", "publishEvent", "action"), "publish"),
        (("components", "schemas", "Status", "type"), "text"),
        (("servers", "redis"), {"protocol": "redis"}),
    ],
)
def test_what_is_no_asyncapi_is_not(
    asyncapi: jsonschema.Draft7Validator, place: tuple[str, ...], wrong: object
) -> None:
    document: Any = json.loads(json.dumps(DOCUMENT))
    *steps, last = place
    node = document
    for step in steps:
        node = node[step]
    node[last] = wrong
    assert not asyncapi.is_valid(document)
