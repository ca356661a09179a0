"""The header `Prefer`: how long a caller waits."""

import pytest
from fastapi import Request, Response

from invigilator.web.preferences import wait_s


@pytest.mark.parametrize(
    ("preference", "seconds"),
    [
        ("wait=1", 1),
        ("wait=0000000000005", 5),
        ("wait=60", 60),
        ("wait=999", 60),
        ("wait=99999999999", 60),
        ('respond-async, wait="' + "9" * 10_000 + '"', 60),
        ("wait=0", 0),
        ("wait=1.5", 0),
        ("wait=-1", 0),
        ("await=5", 0),
    ],
)
def test_a_wait_is_a_minute_at_most(preference: str, seconds: int) -> None:
    response = Response()
    request = Request({"type": "http", "headers": [(b"prefer", preference.encode())]})
    assert wait_s(request, response) == seconds
    assert response.headers.get("preference-applied") == (f"wait={seconds}" if seconds else None)
