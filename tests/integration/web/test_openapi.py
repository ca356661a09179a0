"""The OpenAPI document."""

from tests.integration.web.conftest import Api


def test_the_document_tells_of_every_call(api: Api) -> None:
    document = api.get("/openapi.json").json()
    assert {(path, method) for path, calls in document["paths"].items() for method in calls} == {
        ("/healthz", "get"),
        ("/readyz", "get"),
        ("/v1/attempt", "get"),
        ("/v1/attempts", "get"),
        ("/v1/commands", "get"),
        ("/v1/commands", "post"),
        ("/v1/effects", "get"),
        ("/v1/effects/cancel", "post"),
        ("/v1/effects/causes", "get"),
        ("/v1/effects/pause", "post"),
        ("/v1/effects/resume", "post"),
        ("/v1/effects/retry", "post"),
        ("/v1/events", "get"),
        ("/v1/timeline", "get"),
    }
    assert "ValidationError" not in str(document)
