"""Spans of our own, in the trace that a publisher began. Off unless `worker.telemetry` starts it.

A span's parent is given as `traceparent` (W3C Trace Context), because it comes from a message or a row. While
traces are off, a span is its parent: what is carried on is what came in.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import Enum

from events.errors import InvigilatorError

Attributes = Mapping[str, str | int | None]
"""Those that are None are left out."""


class Kind(Enum):
    """What a span is in its trace. The names are OpenTelemetry's."""

    CLIENT = "a call"
    CONSUMER = "work on a message"
    PRODUCER = "a message that others will work on"
    SERVER = "a call that is answered"


class Span:
    """One piece of work. This class is what it is while traces are off: nothing.

    Attributes:
        traceparent: what the work is to carry on. While traces are off, that of the parent.
    """

    __slots__ = ("traceparent",)

    def __init__(self, traceparent: str | None) -> None:
        self.traceparent = traceparent

    def note(self, attributes: Attributes) -> None:
        """Add attributes."""

    def fail(self, error_type: str, description: str | None = None) -> None:
        """Say that the work has failed.

        Parameters:
            error_type: one of few, such as the name of a class.
            description: in words, without personal data.
        """

    def end(self) -> None:
        """End the span, which is then sent. One that never ends is never sent."""


Begin = Callable[[str, Kind, str | None, Attributes, Sequence[str]], Span]

_begin: Begin | None = None


def is_on() -> bool:
    """Return whether this process sends spans."""
    return _begin is not None


def begin(
    name: str, kind: Kind, parent: str | None, attributes: Attributes, links: Sequence[str] = ()
) -> Span:
    """Begin a span. The caller ends it.

    Parameters:
        name: one of few: ids are attributes.
        parent: the traceparent that the work came with. None begins a trace.
        links: the traceparents of other work that belongs to it.
    """
    return Span(parent) if _begin is None else _begin(name, kind, parent, attributes, links)


@contextmanager
def span(name: str, kind: Kind, parent: str | None, attributes: Attributes) -> Iterator[Span]:
    """Make a span of the work inside the `with`. An exception makes it a failed one. See `begin`."""
    one = begin(name, kind, parent, attributes)
    try:
        yield one
    except Exception as error:
        one.fail(type(error).__name__, str(error) if isinstance(error, InvigilatorError) else None)
        raise
    finally:
        one.end()


def send_with(recorder: Begin) -> None:
    """Let a recorder begin the spans of this process from now on."""
    global _begin
    _begin = recorder
