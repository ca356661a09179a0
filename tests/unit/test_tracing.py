"""Traces: off unless they are asked for, and then by OpenTelemetry's own rules."""

import pytest
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from structlog.typing import EventDict

from tests.spans import named, recording
from tests.unit.events.messages import TRACE
from worker import extras, otel, telemetry, tracing
from worker.errors import Unavailable
from worker.tracing import Kind

ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}
SAMPLED_OUT = TRACE[:-2] + "00"


@pytest.fixture(autouse=True)
def off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracing, "_begin", None)


# --- off -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("parent", [None, TRACE])
def test_while_traces_are_off_what_came_in_is_carried_on(parent: str | None) -> None:
    assert not tracing.is_on()
    with tracing.span("a", Kind.CLIENT, parent, {"a": 1}) as span:
        span.note({"b": 2})
        span.fail("404")
        assert span.traceparent == parent


@pytest.mark.parametrize(
    ("environment", "wanted"),
    [
        ({}, False),
        (ENDPOINT, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://collector/v1/traces"}, True),
        ({"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://collector/v1/metrics"}, False),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, True),
        ({**ENDPOINT, "OTEL_TRACES_EXPORTER": "none"}, False),
        ({**ENDPOINT, "OTEL_TRACES_EXPORTER": ""}, True),
        ({**ENDPOINT, "OTEL_SDK_DISABLED": "TRUE"}, False),
        ({**ENDPOINT, "OTEL_SDK_DISABLED": "false"}, True),
        ({"OTEL_SERVICE_NAME": "exams"}, False),
    ],
)
def test_the_standard_variables_ask_for_them(environment: dict[str, str], wanted: bool) -> None:
    assert telemetry.is_wanted(environment) is wanted


@pytest.mark.parametrize(
    ("environment", "reason"),
    [
        (
            {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
            "OTEL_EXPORTER_OTLP_PROTOCOL must be http/protobuf or unset",
        ),
        (
            {"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/json"},
            "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL must be http/protobuf or unset",
        ),
        ({"OTEL_TRACES_EXPORTER": "zipkin"}, "OTEL_TRACES_EXPORTER must be otlp or unset"),
    ],
)
def test_what_cannot_be_sent_is_said_in_one_line(
    environment: dict[str, str], reason: str, monkeypatch: pytest.MonkeyPatch, logged: list[EventDict]
) -> None:
    for name, value in {**ENDPOINT, **environment}.items():
        monkeypatch.setenv(name, value)
    telemetry.start("consume", "redis")
    [line] = logged
    assert (line["event"], line["log_level"]) == ("traces are off", "warning")
    assert line["reason"] == f"{reason}: nothing else is sent"
    assert not tracing.is_on()


def test_without_the_extra_a_line_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch, logged: list[EventDict]
) -> None:
    monkeypatch.setattr(extras, "missing", lambda extra: ["opentelemetry-sdk"] if extra == "otel" else [])
    # Given nobody who asks for traces, then there is nothing to say
    telemetry.start("consume", "redis")
    assert logged == []
    # When a collector is named, then what is missing is said, and the work goes on
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    telemetry.start("consume", "redis")
    [line] = logged
    assert line["reason"] == (
        "they need the extra [otel] (opentelemetry-sdk missing): pip install 'invigilator[otel]'"
    )
    assert not tracing.is_on()


def test_they_are_on_when_they_can_be_sent(monkeypatch: pytest.MonkeyPatch, logged: list[EventDict]) -> None:
    begun: list[tuple[str, str]] = []

    def recorder(process: str, messaging_system: str) -> tracing.Begin:
        begun.append((process, messaging_system))
        return lambda _name, _kind, parent, _attributes, _links: tracing.Span(parent)

    monkeypatch.setattr(otel, "recorder", recorder)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    telemetry.start("worker", "rabbitmq")
    assert begun == [("worker", "rabbitmq")]
    assert tracing.is_on()
    assert logged == []


# --- on --------------------------------------------------------------------------------------------------------


def test_a_span_is_in_the_trace_of_its_parent_and_carries_itself_on() -> None:
    with recording() as exporter:
        with tracing.span("call", Kind.CLIENT, TRACE, {"kept": "a", "left_out": None}) as span:
            span.note({"status": 200})
            carried = span.traceparent
        [ended] = named(exporter, "call")
    assert carried is not None
    assert carried.split("-")[1] == TRACE.split("-")[1]
    assert ended.context is not None
    assert ended.parent is not None
    assert carried.split("-")[2] == f"{ended.context.span_id:016x}"
    assert (f"{ended.parent.span_id:016x}", ended.kind) == (TRACE.split("-")[2], SpanKind.CLIENT)
    assert ended.attributes == {"kept": "a", "status": 200}
    assert ended.status.status_code is StatusCode.UNSET


def test_an_exception_is_told_by_its_class_and_its_text_only_where_that_is_ours() -> None:
    errors = {Unavailable("no answer from the LMS"): "no answer from the LMS", KeyError("ada"): None}
    with recording() as exporter:
        for error in errors:
            with pytest.raises(type(error)), tracing.span("call", Kind.CLIENT, None, {}):
                raise error
        ended = named(exporter, "call")
    assert [span.status.status_code for span in ended] == [StatusCode.ERROR] * 2
    assert [span.status.description for span in ended] == list(errors.values())
    assert [span.attributes for span in ended] == [{"error.type": "Unavailable"}, {"error.type": "KeyError"}]
    assert [span.events for span in ended] == [(), ()]  # an exception's event would quote it


def test_a_trace_that_its_publisher_does_not_sample_is_carried_on_and_not_sent() -> None:
    with recording() as exporter:
        with tracing.span("call", Kind.CLIENT, SAMPLED_OUT, {}) as span:
            assert span.traceparent is not None
            assert span.traceparent.split("-")[1] == TRACE.split("-")[1]
            assert span.traceparent.endswith("-00")
        assert exporter.get_finished_spans() == ()


def test_what_the_variables_say_of_the_service_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "service.name=exams,deployment.environment.name=test")
    exporter = InMemorySpanExporter()
    begin = otel.recorder("consume", "redis", SimpleSpanProcessor(exporter))
    begin("receive", Kind.CONSUMER, None, {}, ()).end()
    [ended] = exporter.get_finished_spans()
    said = dict(ended.resource.attributes)
    assert said["service.name"] == "exams"
    assert said["deployment.environment.name"] == "test"
    assert said["invigilator.process"] == "consume"
    assert ended.attributes == {"messaging.system": "redis"}
