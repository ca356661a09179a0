"""Records spans with OpenTelemetry's SDK, and sends them by OTLP over HTTP. `worker.telemetry` decides whether.

The SDK reads its own variables: endpoint, headers, time-out, compression, certificates, sampler, and batches.
"""

import socket
from collections.abc import Sequence

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from worker.tracing import Attributes, Begin, Kind, Span

_PROPAGATOR = TraceContextTextMapPropagator()
_OF_MESSAGES = (Kind.CONSUMER, Kind.PRODUCER)
_KINDS = {kind: trace.SpanKind[kind.name] for kind in Kind}


class RecordedSpan(Span):
    """A span of OpenTelemetry's."""

    __slots__ = ("_span",)

    def __init__(self, span: trace.Span) -> None:
        carrier: dict[str, str] = {}
        _PROPAGATOR.inject(carrier, trace.set_span_in_context(span))
        super().__init__(carrier["traceparent"])
        self._span = span

    def note(self, attributes: Attributes) -> None:
        """See `Span`."""
        self._span.set_attributes(_given(attributes))

    def fail(self, error_type: str, description: str | None = None) -> None:
        """See `Span`."""
        self._span.set_attribute("error.type", error_type)
        self._span.set_status(trace.StatusCode.ERROR, description)

    def end(self) -> None:
        """See `Span`."""
        self._span.end()


def recorder(process: str, messaging_system: str, processor: SpanProcessor | None = None) -> Begin:
    """Return what begins the spans of this process. They are sent in the background, and at its end.

    Parameters:
        process: what this process is, such as `consume`.
        messaging_system: the broker's, as OpenTelemetry calls it.
        processor: takes the spans that have ended. The default sends them to the collector.
    """
    ours = {
        "service.name": "invigilator",
        "service.instance.id": f"{socket.gethostname()}:{process}",
        "invigilator.process": process,
    }
    # What the variables say of the service goes before what we say.
    resource = Resource.create(ours).merge(OTELResourceDetector().detect())
    provider = TracerProvider(resource=resource)
    provider.add_span_processor(processor or BatchSpanProcessor(OTLPSpanExporter()))
    tracer = provider.get_tracer("invigilator")

    def begin(
        name: str, kind: Kind, parent: str | None, attributes: Attributes, links: Sequence[str]
    ) -> Span:
        system = messaging_system if kind in _OF_MESSAGES else None
        return RecordedSpan(
            tracer.start_span(
                name,
                context=_PROPAGATOR.extract({} if parent is None else {"traceparent": parent}),
                kind=_KINDS[kind],
                attributes=_given({**attributes, "messaging.system": system}),
                links=[trace.Link(_context(one)) for one in links],
            )
        )

    return begin


def _context(traceparent: str) -> trace.SpanContext:
    extracted = _PROPAGATOR.extract({"traceparent": traceparent})
    return trace.get_current_span(extracted).get_span_context()


def _given(attributes: Attributes) -> dict[str, str | int]:
    return {name: value for name, value in attributes.items() if value is not None}
