"""The OpenAPI document, and a fuzzer that holds the API to it."""

from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_schema_conformance,
    status_code_conformance,
)

from invigilator.web.tokens import ANYBODY, Tokens, digest, new_token
from tests import sample_commands as c
from tests.integration.cli.conftest import Record
from tests.integration.web.conftest import Api

TOKEN = new_token()
EXAMPLES = 25
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    negative_data_rejection,
]


@pytest.fixture
def schema(api: Api, record: Record) -> Iterator[Any]:
    """The API as it describes itself, with something to find, and a broker whose `consume` is away."""
    record.handle(c.received(c.create("A", attempt_code="0"), "0"), c.received(c.update("A", "submitted")))
    api.sink.consumes = False
    api.tokens = Tokens({digest(TOKEN): ANYBODY})
    # /readyz would say that there is no broker.
    return schemathesis.openapi.from_asgi("/openapi.json", api.app()).exclude(path="/readyz")


fuzzed = schemathesis.pytest.from_fixture("schema")


@fuzzed.parametrize()
@settings(max_examples=EXAMPLES, suppress_health_check=list(HealthCheck))
def test_every_answer_is_one_that_the_document_tells_of(case: schemathesis.Case) -> None:
    case.call_and_validate(headers={"Authorization": f"Bearer {TOKEN}"}, checks=CHECKS)


def test_the_document_tells_of_every_call(api: Api) -> None:
    document = api.get("/openapi.json").json()
    assert {(path, method) for path, calls in document["paths"].items() for method in calls} == {
        ("/healthz", "get"),
        ("/readyz", "get"),
        ("/v1/attempt", "get"),
        ("/v1/attempts", "get"),
        ("/v1/commands", "get"),
        ("/v1/commands", "post"),
        ("/v1/events", "get"),
        ("/v1/timeline", "get"),
    }
    assert "ValidationError" not in str(document)
