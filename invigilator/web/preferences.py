"""The header `Prefer` (RFC 7240): how long a caller wants to wait."""

import re
from typing import Any

from fastapi import Request, Response

MAX_WAIT_S = 60
_WAIT = re.compile(r'(?:^|[,;])\s*wait\s*=\s*"?(\d+)"?\s*(?:$|[,;])', re.IGNORECASE)


def parameter(what: str) -> dict[str, Any]:
    """Return what the OpenAPI document says of the header.

    Parameters:
        what: what is waited for.
    """
    description = f"`wait=N` waits for {what}, {MAX_WAIT_S} seconds at most."
    return {"name": "Prefer", "in": "header", "description": description, "schema": {"type": "string"}}


def wait_s(request: Request, response: Response) -> int:
    """Return for how many seconds the caller prefers to wait, and say so in the answer. 0 for not at all.

    A preference that cannot be read is ignored.
    """
    found = _WAIT.search(",".join(request.headers.getlist("prefer")))
    # float, because int refuses thousands of digits.
    seconds = int(min(float(found[1]), MAX_WAIT_S)) if found else 0
    if seconds:
        response.headers["Preference-Applied"] = f"wait={seconds}"
    return seconds
