"""One trace across the processes: what a collector gets of a command, from its publisher to the call to the LMS."""

import json
from itertools import pairwise

from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.acceptance.client import event
from tests.acceptance.harness import Stack
from tests.spans import Collector

TRACE_ID, PUBLISHER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SUBMITTED = {"exam_id": "A", "user_id": "u", "to_status": "submitted"}


def test_one_trace_leads_through_all_processes(database_url: str, valkey_url: str) -> None:
    with Collector() as collector, Stack(database_url, valkey_url) as stack:
        # Given a system whose processes know a collector
        stack.other_variables = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url}
        stack.start_all()
        stack.client.course("course")
        stack.client.exam("A", "course")
        stack.client.learner("u")
        stack.client.create("A", "u", taking_as_proctored=True)
        # When a publisher sends a command of a trace
        command = json.loads(event("exam.attempt.update-status.v1", SUBMITTED, "submit"))
        command["traceparent"] = f"00-{TRACE_ID}-{PUBLISHER}-01"
        stack.client.publish([json.dumps(command).encode()])
        stack.settle()
        for name in ("commands", "effects", "mail"):
            [process] = stack.running(name)
            assert process.terminate() == 0
        # Then the collector has got one trace from all of them
        spans = {
            (process, span.name): span for process, span in collector.spans if span.trace_id.hex() == TRACE_ID
        }
        commanded = spans["consume", "process invigilator.commands.0"]
        owed = spans["consume", "owe invigilator.effects.credit"]
        tried = spans["worker", "try invigilator.effects.credit"]
        called = spans["worker", "POST /credit/set-requirement-status"]
        assert commanded.parent_span_id.hex() == PUBLISHER
        assert _chain([commanded, owed, tried, called])
        mailed = spans["worker", "send mail"]
        assert _chain([commanded, spans["consume", "owe invigilator.effects.email"]])
        assert _chain([spans["worker", "try invigilator.effects.email"], mailed])
        # and the LMS has got the span of the call
        [call] = [one for one in stack.lms.requests if one.path == "/credit/set-requirement-status"]
        assert call.traceparent == f"00-{TRACE_ID}-{called.span_id.hex()}-01"
        # The batch that the command came in has a link to it
        batches = [span for _, span in collector.spans if span.name == "receive invigilator.commands.0"]
        assert [commanded.span_id in [link.span_id for link in one.links] for one in batches].count(True) == 1


def _chain(spans: list[Span]) -> bool:
    """Whether each is the child of the one before."""
    return all(child.parent_span_id == one.span_id for one, child in pairwise(spans))
