"""The span of a try. Its parent is that of the effect, whoever made the try before."""

from contextlib import AbstractContextManager

from db.effects import Claim
from worker import tracing
from worker.tracing import Attributes, Kind, Span


def of_try(claim: Claim) -> AbstractContextManager[Span]:
    """Make a span of the try that is made inside the `with`."""
    attributes: Attributes = {
        "messaging.operation.name": "try",
        "messaging.operation.type": "process",
        "messaging.destination.name": claim.queue,
        "messaging.message.id": str(claim.id),
        "invigilator.kind": claim.kind,
        "invigilator.number": claim.number,
        "invigilator.attempt": claim.attempt_code,
        "cloudevents.event_id": claim.command_id,
        "cloudevents.event_source": claim.source,
    }
    return tracing.span(f"try {claim.queue}", Kind.CONSUMER, claim.traceparent, attributes)
