"""Finds the cause that failures share, whatever numbers and ids their texts hold. Pure: no I/O (decision 40)."""

import hashlib
import json
import re
from collections.abc import Collection
from dataclasses import dataclass

VARIABLE = "…"
"""Stands in a reason for what differs between failures of one cause."""
MAX_REASON = 500
"""Characters of a reason. What is behind them does not count."""
_ID_DIGITS = 32  # hexadecimal: 128 bits, so that no two causes share an id

_QUOTED = r"'[^']*'|\"[^\"]*\""
_WORD = re.compile(rf"{_QUOTED}|[^\s()'\"]+")
# A quotation, the query of a URL, and each part of a path or of a word that has a digit.
_PART = re.compile(rf"{_QUOTED}|\?\S+|[^/;,&=]*[0-9](?:[^/;,?&=]*[^/;,?&=:.])?")
_PUNCTUATION = ",;:."


@dataclass(frozen=True, slots=True)
class Cause:
    """Why tries of a kind fail.

    Parameters:
        id: the same for the same cause, in every process.
        kind: of the effects.
        exception: the class of the error. None when no error was raised.
        status: what HTTP or SMTP has answered. None where nothing has.
        reason: without what differs between failures of this cause.
    """

    id: str
    kind: str
    exception: str | None
    status: int | None
    reason: str


def find_cause(
    kind: str,
    text: str,
    *,
    exception: str | None = None,
    status: int | None = None,
    codes: Collection[str] = (),
) -> Cause:
    """Return the cause of a failure.

    Parameters:
        kind: of the effect.
        text: what is said of the failure.
        exception: the class of the error.
        status: the answer's, of HTTP or SMTP.
        codes: words that tell causes apart, although they may hold digits, such as the code in an answer.

    Example:
        >>> text = "LMS answered 404 to GET /courses/7 (E12)"
        >>> find_cause("set_credit_status", text, status=404, codes=["E12"]).reason
        'LMS answered 404 to GET /courses/… (E12)'
    """
    reason = _without_variables(text, codes if status is None else [str(status), *codes])[:MAX_REASON]
    parts = json.dumps([kind, exception, status, sorted(codes), reason])
    fingerprint = hashlib.sha256(parts.encode()).hexdigest()[:_ID_DIGITS]
    return Cause(fingerprint, kind, exception, status, reason)


def _without_variables(text: str, codes: Collection[str]) -> str:
    # Each code stands in the text once. The same word further on is an id that happens to be equal.
    left = set(codes)

    def shown(word: re.Match[str]) -> str:
        for candidate in (word[0], word[0].rstrip(_PUNCTUATION)):
            if candidate in left:
                left.discard(candidate)
                return word[0]
        return _PART.sub(VARIABLE, word[0])

    return _WORD.sub(shown, text)
