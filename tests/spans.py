"""Records the spans of a test, and receives those of processes by OTLP."""

from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from invigilator.demo.reference.http_server import HttpRequest, HttpResponse, HttpServer
from worker import otel, tracing


@contextmanager
def recording() -> Iterator[InMemorySpanExporter]:
    """Turn traces on for a while."""
    exporter = InMemorySpanExporter()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tracing, "_begin", otel.recorder("tests", "redis", SimpleSpanProcessor(exporter)))
        yield exporter


def named(exporter: InMemorySpanExporter, name: str) -> list[ReadableSpan]:
    """The spans of a name that have ended, in the order of their ends."""
    return [span for span in exporter.get_finished_spans() if span.name == name]


class Collector(HttpServer):
    """Takes spans as an OpenTelemetry collector does, over HTTP."""

    def __init__(self) -> None:
        super().__init__()
        self.spans: list[tuple[str, Span]] = []
        """Each with the process that sent it."""

    def answer(self, request: HttpRequest) -> HttpResponse:
        """Keep what is sent to the path of traces."""
        assert request.path == "/v1/traces"
        for sent in ExportTraceServiceRequest.FromString(request.body).resource_spans:
            said = {one.key: one.value.string_value for one in sent.resource.attributes}
            assert said["service.name"] == "invigilator"
            for scope in sent.scope_spans:
                self.spans += [(said["invigilator.process"], span) for span in scope.spans]
        return HttpResponse(HTTPStatus.OK, {})
