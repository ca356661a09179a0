"""Schemathesis holds the API to the OpenAPI document that it serves.

The fuzzer has an environment of its own, because its plugin does not load beside our pytest."""

import json
from pathlib import Path
from typing import Any

import pytest

from invigilator.web.tokens import ANYBODY, Tokens, digest, new_token
from tests import sample_commands as c
from tests.install.environments import Environment
from tests.integration.cli.conftest import Record
from tests.integration.feeds.conftest import number
from tests.integration.web.conftest import Api
from tests.integration.web.conftest import api as api
from tests.integration.web.conftest import kept as kept
from tests.integration.web.conftest import record as record
from tests.integration.web.conftest import unasked as unasked

CONSTRAINTS = Path(__file__).with_name("fuzzer.txt")
TOKEN = new_token()
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
    "unsupported_method",
)
EXAMPLES = 20


@pytest.fixture(scope="session")
def fuzzer(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """The fuzzer, on pinned releases."""
    environment = Environment.create(tmp_path_factory.mktemp("fuzzer"), constraints=CONSTRAINTS)
    environment.install("schemathesis")
    return environment


@pytest.mark.usefixtures("kept")
def test_every_answer_is_one_that_the_document_tells_of(
    api: Api, record: Record, fuzzer: Environment, tmp_path: Path
) -> None:
    # Given something to find, and a broker whose `consume` is away
    record.handle(c.received(c.create("A", attempt_code="0"), "0"), c.received(c.update("A", "submitted")))
    number(api.engine)
    api.sink.consumes = False
    api.tokens = Tokens({digest(TOKEN): ANYBODY})
    document = tmp_path / "openapi.json"
    document.write_text(json.dumps(without_patterns(api.get("/openapi.json").json())))
    with api.looking_out(), api.served() as (_, (host, port)):
        # When calls are made up, right ones and wrong ones. (/readyz would say that there is no broker.)
        found = fuzzer.run(
            "schemathesis",
            *("run", document.name, "--url", f"http://{host}:{port}", "--exclude-path", "/readyz"),
            *("--header", f"Authorization: Bearer {TOKEN}", "--checks", ",".join(CHECKS)),
            *(
                "--max-examples",
                str(EXAMPLES),
                "--generation-deterministic",
                "--generation-allow-x00",
                "false",
            ),
            *("--phases", "fuzzing", "--no-color", "--warnings", "off"),
            folder=tmp_path,
        )
    # Then each answer has a status, a type and a body that the document tells of
    assert found.returncode == 0, found.stdout + found.stderr


def without_patterns(node: Any) -> Any:
    """Return a document without the patterns of its strings, from which it takes minutes to make up strings.

    They allow every character but NUL and half surrogates, which the fuzzer leaves out anyway.
    """
    if isinstance(node, list):
        return [without_patterns(part) for part in node]
    if not isinstance(node, dict):
        return node
    return {
        name: without_patterns(part)
        for name, part in node.items()
        if not (name == "pattern" and isinstance(part, str))
    }
