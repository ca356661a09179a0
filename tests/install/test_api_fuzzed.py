"""Schemathesis holds the API to the OpenAPI document that it serves.

The fuzzer has an environment of its own, because its plugin does not load beside our pytest."""

from pathlib import Path

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

CONSTRAINTS = Path(__file__).with_name("fuzzer.txt")
TOKEN = new_token()
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
    "response_headers_conformance",
    "negative_data_rejection",
    "unsupported_method",
)
EXAMPLES = 10


@pytest.fixture(scope="session")
def fuzzer(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """The fuzzer, on pinned releases."""
    environment = Environment.create(tmp_path_factory.mktemp("fuzzer"), constraints=CONSTRAINTS)
    environment.install("--no-compile", "schemathesis")
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
    with api.looking_out(), api.served() as (_, (host, port)):
        # When calls are made up, right ones and wrong ones. (/readyz would say that there is no broker.)
        found = fuzzer.run(
            "schemathesis",
            *("run", f"http://{host}:{port}/openapi.json", "--exclude-path", "/readyz"),
            *("--header", f"Authorization: Bearer {TOKEN}", "--checks", ",".join(CHECKS)),
            *("--max-examples", str(EXAMPLES), "--seed", "7", "--generation-deterministic"),
            *("--phases", "fuzzing", "--no-color", "--warnings", "off"),
            folder=tmp_path,
        )
    # Then each answer has a status, a type and a body that the document tells of
    assert found.returncode == 0, found.stdout + found.stderr
