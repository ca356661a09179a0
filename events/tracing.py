"""Reads `traceparent`: the trace that a command belongs to (W3C Trace Context, CloudEvents' distributed tracing).

A trace is for people who look for something. So one that cannot be read is left out, and the command counts.
"""

import re

# Version 00. Neither of the two ids may be all zeros.
_TRACEPARENT = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")


def read_traceparent(value: object) -> str | None:
    """Return a trace, or None where there is none that can be read.

    Parameters:
        value: as it was sent, of any type.

    Example:
        >>> read_traceparent("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
        '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01'
        >>> read_traceparent("00-0af7651916cd43dd") is None
        True
    """
    return value if isinstance(value, str) and _TRACEPARENT.fullmatch(value) else None


def trace_of(traceparent: str | None) -> str | None:
    """Return the id of a trace.

    Parameters:
        traceparent: as `read_traceparent` returns it.

    Example:
        >>> trace_of("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
        '0af7651916cd43dd8448eb211c80319c'
    """
    return None if traceparent is None else traceparent.split("-")[1]
