"""Reads the URLs that calls go to."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import httpx

MAX_PORT = 65_535


def read_url(text: str) -> "httpx.URL":
    """Return an http(s) URL with a host, and without user or fragment.

    Raises:
        ValueError: it is none. The text quotes nothing of it.
    """
    import httpx  # a process that reads no such URL starts without it

    try:
        url = httpx.URL(text)
        url.raw_host.decode("ascii").encode("idna")  # a bad name raises ValueError here, not at each look-up
    except (httpx.InvalidURL, ValueError):
        raise ValueError("cannot be read") from None
    if url.scheme not in ("http", "https") or not url.host or (url.port or 0) > MAX_PORT:
        raise ValueError("must have http or https, a host, and a port that exists")
    if url.userinfo or url.fragment:
        raise ValueError("must have no user and no fragment")
    return url
