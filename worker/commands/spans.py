"""The spans of a batch: one of the batch itself, and one of each command, in the trace that its publisher began.

A batch holds commands of many traces. So its span begins a trace of its own, and has a link to each command's. The
names and attributes are those of OpenTelemetry's semantic conventions for messaging, as far as they fit.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from db.inbox import Key
from db.quarantine import Unreadable
from events.sharding import queue_name
from worker import tracing
from worker.commands.decoding import Received
from worker.commands.handler import Written
from worker.tracing import Attributes, Kind, Span

Item = Received | Unreadable


@dataclass(frozen=True, slots=True)
class BatchSpans:
    """The spans of a batch that is being committed.

    Parameters:
        items: the messages of the batch. Each command carries its own span on.
        batch: the span of the batch.
        commands: the spans of the commands.
    """

    items: Sequence[Item]
    batch: Span
    commands: Mapping[Key, Span] = field(default_factory=dict)

    def note(self, written: Written) -> None:
        """Note what was decided. A command without a decision is a duplicate."""
        if not self.commands:
            return
        for command, handled in written.decided:
            self.commands[command.source, command.id].note(
                {
                    "invigilator.outcome": handled.outcome,
                    "invigilator.code": handled.code,
                    "invigilator.attempt": handled.attempt_code,
                }
            )

    def end(self) -> None:
        """End all of them."""
        for span in self.commands.values():
            span.end()
        self.batch.end()


def begin(shard: int, items: Sequence[Item]) -> BatchSpans:
    """Begin the spans of a batch. While traces are off, this returns the items as they are.

    Parameters:
        shard: where the batch came in.
        items: its messages.
    """
    if not tracing.is_on():
        return BatchSpans(items, Span(None))
    queue = queue_name(shard)
    commands: dict[Key, Span] = {}
    for item in items:
        if isinstance(item, Received) and item.key not in commands:
            commands[item.key] = _begin_command(queue, item)
    batch = tracing.begin(
        f"receive {queue}",
        Kind.CONSUMER,
        None,
        _messaging("receive", queue) | {"messaging.batch.message_count": len(items)},
        [span.traceparent for span in commands.values() if span.traceparent is not None],
    )
    return BatchSpans([_carrying(item, commands) for item in items], batch, commands)


def _begin_command(queue: str, item: Received) -> Span:
    command = item.command
    attributes: Attributes = {
        **_messaging("process", queue),
        "messaging.message.id": command.id,
        "messaging.message.body.size": len(item.body),
        "cloudevents.event_id": command.id,
        "cloudevents.event_source": command.source,
        "cloudevents.event_type": command.type,
    }
    return tracing.begin(f"process {queue}", Kind.CONSUMER, command.traceparent, attributes)


def _messaging(operation: str, queue: str) -> dict[str, str | int]:
    return {
        "messaging.operation.name": operation,
        "messaging.operation.type": operation,
        "messaging.destination.name": queue,
    }


def _carrying(item: Item, commands: Mapping[Key, Span]) -> Item:
    if isinstance(item, Unreadable):
        return item
    return replace(item, command=replace(item.command, traceparent=commands[item.key].traceparent))
