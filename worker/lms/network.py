"""Checks the settings about what stands between us and the LMS: certificates, a proxy, a gateway's headers."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from ssl import SSLContext, create_default_context

import httpx

from worker.errors import ConfigurationError
from worker.lms.http_answers import PROXY_SETTING
from worker.urls import MAX_PORT

HEADERS_SETTING = "INVIGILATOR_LMS_HEADERS"
AUTHORIZATION = "authorization"

_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_VALUE = re.compile(r"[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?")
_OURS = frozenset(
    {
        "accept",
        "accept-encoding",
        "connection",
        "content-length",
        "content-type",
        "host",
        "idempotency-key",
        "traceparent",
        "transfer-encoding",
    }
)  # and every `Invigilator-…`


def tls_context(certificate: Path | None, key: Path | None) -> SSLContext:
    """Return what TLS needs: the system's trusted authorities, and our own certificate if there is one.

    Parameters:
        certificate: our certificate and the ones that it was signed with, in PEM. None to show none.
        key: its private key, without a passphrase. None if it is in the same file.

    Raises:
        ConfigurationError: the files cannot be read, or do not belong together.
    """
    context = create_default_context()
    if certificate is None:
        return context
    try:
        # Without a password OpenSSL would ask for one on the terminal.
        context.load_cert_chain(certificate, key, password="")
    except OSError as error:  # ssl.SSLError is one
        raise ConfigurationError(
            "INVIGILATOR_LMS_CERT and INVIGILATOR_LMS_KEY must name a certificate and its private key, as PEM "
            f"files without a passphrase ({error.strerror or type(error).__name__})"
        ) from None
    return context


def checked_proxy(url: str) -> httpx.Proxy:
    """Read the URL of a proxy.

    Raises:
        ConfigurationError: it cannot work. The message does not quote it, because it may hold a password.
    """
    allowed = f"{PROXY_SETTING} must be http(s)://[user:password@]host[:port]"
    try:
        read = httpx.URL(url)
    except httpx.InvalidURL:
        raise ConfigurationError(allowed) from None
    if (
        read.scheme not in ("http", "https")
        or not read.host
        or read.path != "/"
        or read.query
        or read.fragment
        or (read.port or 0) > MAX_PORT
    ):
        raise ConfigurationError(allowed)
    return httpx.Proxy(read)


def checked_headers(text: str, *, signed_in: bool) -> Mapping[str, str]:
    """Read the headers that a gateway wants.

    Parameters:
        text: a JSON object of names and values.
        signed_in: whether another setting already says what `Authorization` is.

    Raises:
        ConfigurationError: it is no such object, or a header cannot be sent. The message quotes no value.
    """
    headers = _parsed(text)
    for name, value in headers.items():
        if not _NAME.fullmatch(name) or not isinstance(value, str) or not _VALUE.fullmatch(value):
            raise ConfigurationError(
                f"{HEADERS_SETTING}: {name!r} and its value must be printable ASCII text"
            )
        if name.lower() in _OURS or name.lower().startswith("invigilator-"):
            raise ConfigurationError(f"{HEADERS_SETTING}: {name} is set by the calls themselves")
        if name.lower() == AUTHORIZATION and signed_in:
            raise ConfigurationError(
                f"{HEADERS_SETTING}: {name} is set by INVIGILATOR_LMS_TOKEN or INVIGILATOR_LMS_OAUTH_…"
            )
    return headers


def _parsed(text: str) -> dict[str, str]:
    try:
        headers = json.loads(text)
    except ValueError:
        headers = None
    if not isinstance(headers, dict):
        raise ConfigurationError(f'{HEADERS_SETTING} must be a JSON object, such as {{"X-Api-Key": "…"}}')
    return headers
