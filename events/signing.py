"""Signatures: HMAC-SHA-256 over a message's exact body, with a key that its sender and Invigilator share."""

import hmac
from collections.abc import Iterable

SIGNATURE_HEADER = "invigilator-signature"
MIN_KEY_CHARS = 32


def sign(body: bytes, key: str) -> str:
    """Return the signature of a body: 64 lowercase hexadecimal digits.

    Parameters:
        body: the exact bytes that are published.
        key: the shared secret; its UTF-8 bytes count.
    """
    return hmac.digest(key.encode("utf-8"), body, "sha256").hex()


def is_signed(body: bytes, signature: str, keys: Iterable[str]) -> bool:
    """Return whether one of the keys made a signature of a body. How long it takes tells nothing about the keys.

    Parameters:
        body: the exact bytes that arrived.
        signature: the text that the sender sent as signature.
        keys: all valid keys. Each is tried, also after one that fits.
    """
    given = signature.encode("utf-8", "replace")  # compare_digest refuses text that is not ASCII
    fits = [hmac.compare_digest(sign(body, key).encode("ascii"), given) for key in keys]
    return any(fits)
