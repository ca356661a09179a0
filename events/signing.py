"""Signatures: HMAC-SHA-256 over a message's exact body, with a key that its sender and Invigilator share."""

import hmac
from collections.abc import Iterable

SIGNATURE_HEADER = "invigilator-signature"
MIN_KEY_CHARS = 32


def sign(body: bytes, key: str) -> str:
    """Return the signature of a body: 64 lowercase hexadecimal digits.

    Parameters:
        body: what is published, to the byte.
        key: the shared secret; its UTF-8 bytes count.
    """
    return hmac.digest(key.encode("utf-8"), body, "sha256").hex()


def is_signed(body: bytes, signature: str, keys: Iterable[str]) -> bool:
    """Return whether a signature is that of a body by one of the keys. How long it takes tells nothing of them.

    Parameters:
        body: what arrived, to the byte.
        signature: whatever its sender wrote there.
        keys: all that are live; each is tried, whichever fits.
    """
    given = signature.encode("utf-8", "replace")  # compare_digest refuses text that is not ASCII
    fits = [hmac.compare_digest(sign(body, key).encode("ascii"), given) for key in keys]
    return any(fits)
