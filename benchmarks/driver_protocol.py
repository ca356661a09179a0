"""The drivers' side of the protocol: JSON lines on standard input and output (the other side: `running.Process`).

This module imports the standard library only, because the peer's Python has none of our packages.
"""

import json
import sys
from collections.abc import Iterator, Mapping
from typing import Any


def requests() -> Iterator[dict[str, Any]]:
    """Yield the requests until standard input ends."""
    for line in sys.stdin:
        yield json.loads(line)


def write(document: Mapping[str, Any]) -> None:
    """Write the first line, which says that the driver is ready, or an answer."""
    sys.stdout.write(json.dumps(document) + "\n")
    sys.stdout.flush()
