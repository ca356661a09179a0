"""Signs what a webhook sends, and checks and reads what it brings: an event, by Standard Webhooks 1.0.

It is written with the standard library, because the client brings nothing but kombu and pydantic into an LMS. A
test compares it with the package `standardwebhooks`.
"""

import hmac
import json
import time
from base64 import b64decode, b64encode
from collections.abc import Iterable, Mapping
from typing import Any

from .errors import InvalidWebhookError

ID_HEADER = "webhook-id"
TIMESTAMP_HEADER = "webhook-timestamp"
SIGNATURE_HEADER = "webhook-signature"

SECRET_PREFIX = "whsec_"  # noqa: S105 - the beginning of every secret is public
TOLERANCE_S = 5 * 60
"""Seconds by which the sender's clock and ours may differ, either way. A message beyond may be a replayed one."""

MIN_SECRET_BYTES = 24
MAX_SECRET_BYTES = 64

_VERSION = "v1"
_SECRET = f"a secret must be {SECRET_PREFIX} and base64 of {MIN_SECRET_BYTES} to {MAX_SECRET_BYTES} bytes"


def verify_webhook(body: bytes, headers: Mapping[str, str], secrets: Iterable[str]) -> dict[str, Any]:
    """Return the event that a webhook has brought, if it is signed with one of the secrets, and recent.

    Parameters:
        body: the request's exact bytes, before anything has parsed them.
        headers: of the request. Names may be in any case.
        secrets: all that are valid now, such as `whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw`. There are two while one
            replaces the other.

    Returns:
        the CloudEvent. Its `id` is the same each time the event is sent: skip those that were handled before.

    Raises:
        InvalidWebhookError: a header is missing or no text, the time is more than 5 minutes away, no secret fits,
            or the body is no event. Answer with status 400.
        ValueError: there is no secret, or one is not `whsec_` and base64 of 24 to 64 bytes.
        TypeError: the body is not bytes.

    Example:
        >>> verify_webhook(b"{}", {}, ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"])
        Traceback (most recent call last):
        ...
        events.errors.InvalidWebhookError: the header webhook-id is missing
    """
    if not isinstance(body, bytes | bytearray):
        raise TypeError("body must be the request's bytes, before anything has decoded or parsed them")
    keys = [read_secret(secret) for secret in secrets]
    if not keys:
        raise ValueError("give at least one secret")
    given = {name.lower(): value for name, value in headers.items()}
    webhook_id, timestamp, signatures = (
        _header(given, name) for name in (ID_HEADER, TIMESTAMP_HEADER, SIGNATURE_HEADER)
    )
    _check_age(timestamp)
    # A surrogate, which no sender can have signed, stays different from all other text.
    signed = b".".join([webhook_id.encode("utf-8", "surrogatepass"), timestamp.encode(), body])
    _check_signature(signed, signatures, keys)
    return _event(body)


def sign_webhook(body: bytes, webhook_id: str, timestamp: int, secrets: Iterable[str]) -> dict[str, str]:
    """Return the headers that show a receiver who sends a body, and when.

    Parameters:
        body: the request's exact bytes.
        webhook_id: the event's id. A receiver knows a repeated event by it.
        timestamp: the time of sending, in seconds since 1970.
        secrets: all that are live. Each of them signs, so that the receiver may know any of them.

    Raises:
        ValueError: a secret is not `whsec_` and base64 of 24 to 64 bytes.

    Example:
        >>> secrets = ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"]
        >>> headers = sign_webhook(b'{"id":"1"}', "1", int(time.time()), secrets)
        >>> verify_webhook(b'{"id":"1"}', headers, secrets)
        {'id': '1'}
    """
    signed = b".".join([webhook_id.encode(), str(timestamp).encode(), body])
    return {
        ID_HEADER: webhook_id,
        TIMESTAMP_HEADER: str(timestamp),
        SIGNATURE_HEADER: " ".join(_signature(signed, read_secret(secret)) for secret in secrets),
    }


def read_secret(secret: str) -> bytes:
    """Return the key of a secret that is fit to sign with.

    Raises:
        ValueError: it is not `whsec_` and base64 of 24 to 64 bytes. The text does not quote it.
    """
    try:
        key = b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)
    except (ValueError, TypeError, AttributeError):  # or it is no text, such as a setting that is missing
        raise ValueError(_SECRET) from None
    if not (secret.startswith(SECRET_PREFIX) and MIN_SECRET_BYTES <= len(key) <= MAX_SECRET_BYTES):
        raise ValueError(_SECRET)
    return key


def _header(headers: Mapping[str, object], name: str) -> str:
    if name not in headers:
        raise InvalidWebhookError(f"the header {name} is missing")
    value = headers[name]
    if not isinstance(value, str):
        raise InvalidWebhookError(f"the header {name} is no text")
    return value


def _check_age(timestamp: str) -> None:
    if not (timestamp.isascii() and timestamp.isdigit() and len(timestamp) <= 12):
        raise InvalidWebhookError(f"the header {TIMESTAMP_HEADER} is no number of seconds")
    if abs(time.time() - int(timestamp)) > TOLERANCE_S:
        raise InvalidWebhookError(
            f"the time in {TIMESTAMP_HEADER} is more than {TOLERANCE_S} s away; check this server's clock"
        )


def _check_signature(signed: bytes, signatures: str, keys: Iterable[bytes]) -> None:
    given = [signature.encode("utf-8", "replace") for signature in signatures.split(" ")]
    expected = [_signature(signed, key).encode("ascii") for key in keys]
    # All are compared, so that the time tells nothing about the keys.
    fits = [hmac.compare_digest(one, other) for one in given for other in expected]
    if not any(fits):
        raise InvalidWebhookError("no secret fits the signature; check that the body is passed on unchanged")


def _signature(signed: bytes, key: bytes) -> str:
    return f"{_VERSION},{b64encode(hmac.digest(key, signed, 'sha256')).decode('ascii')}"


def _event(body: bytes) -> dict[str, Any]:
    try:
        event = json.loads(body)
    except (ValueError, RecursionError):
        raise InvalidWebhookError("the body is not JSON, or is nested too deeply") from None
    if not isinstance(event, dict):
        raise InvalidWebhookError("the body is no event")
    return event
