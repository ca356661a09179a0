"""The types of the values in a message, and errors that say what is wrong with one without quoting it."""

import re
from typing import Annotated

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    WithJsonSchema,
)

MAX_ID = 255  # characters
MAX_TEXT = 1000  # characters
MAX_EMAIL = 254  # characters, the longest address that SMTP can carry
MAX_INTEGER = 2_147_483_647  # PostgreSQL's integer

# The patterns below are those of the JSON Schemas, too, so they must mean the same to every engine. Engines differ
# in escapes beyond U+00FF and in what white space is: characters stand for themselves.

# PostgreSQL's text can hold neither U+0000 nor lone surrogates.
STORABLE = "^[\x01-\ud7ff\ue000-\U0010ffff]*$"

# No white space and no control characters: an address ends up in the header of a mail.
_ADDRESS = (
    "[!-?A-~\xa1-\u167f\u1681-\u1fff\u200b-\u2027\u202a-\u202e\u2030-\u205e\u2060-\u2fff"
    "\u3001-\ud7ff\ue000-\U0010ffff]+"
)
EMAIL = f"^{_ADDRESS}@{_ADDRESS}$"

LINE_FEED = r"\n"
"""JSON Schemas refuse it beside a pattern that ends with `$`. Python's `$` also matches before a last one."""

_MAX_PROBLEMS = 5  # in one detail; the rest are only counted
_IDENTIFIER = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,39}")

_WORDING = {
    "missing": "is missing",
    "extra_forbidden": "is not a known field",
    "string_unicode": "must not contain a lone surrogate",
    "tuple_type": "must be a list",
    "string_pattern_mismatch": "has a character or a form that is not allowed",
}


class Frozen(BaseModel):
    """A part of a message, checked and immutable. It converts nothing silently; its errors quote no input."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", hide_input_in_errors=True)


def _decimal(value: object) -> object:
    # The exact type, because Python takes True for an int.
    return str(value) if type(value) is int else value


Id = Annotated[
    str,
    StringConstraints(min_length=1, max_length=MAX_ID, pattern=STORABLE),
    BeforeValidator(_decimal),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "minLength": 1, "maxLength": MAX_ID, "pattern": STORABLE},
                # As many digits, with the sign, as a string may have characters.
                {"type": "integer", "minimum": 1 - 10 ** (MAX_ID - 1), "maximum": 10**MAX_ID - 1},
            ]
        }
    ),
]
"""A string of 1 to 255 characters; an integer is taken as its decimal string."""

Key = Annotated[str, StringConstraints(min_length=1, max_length=MAX_ID, pattern=STORABLE)]
"""A string of 1 to 255 characters."""

Text = Annotated[str, StringConstraints(max_length=MAX_TEXT, pattern=STORABLE)]
"""A string of up to 1000 characters."""

Email = Annotated[
    str,
    StringConstraints(max_length=MAX_EMAIL, pattern=EMAIL),
    Field(json_schema_extra={"not": {"pattern": LINE_FEED}}),
]
"""A string with the form of an e-mail address that is safe in the header of a mail."""

Language = Annotated[
    str,
    StringConstraints(max_length=35, pattern="^([A-Za-z]{2,8}|[ixIX]-[A-Za-z0-9]{1,8})(-[A-Za-z0-9]{1,8})*$"),
    Field(json_schema_extra={"not": {"pattern": LINE_FEED}}),
]
"""A language tag in the form of BCP 47, such as `ar` or `es-419`."""

TimeZone = Annotated[
    str,
    StringConstraints(max_length=64, pattern="^[A-Za-z][A-Za-z0-9_+-]*(/[A-Za-z0-9_+-]+)*$"),
    Field(json_schema_extra={"not": {"pattern": LINE_FEED}}),
]
"""A string with the form of a name in the IANA time zone database, such as `Africa/Cairo`."""

Minutes = Annotated[int, Field(ge=0, le=MAX_INTEGER)]
"""A whole number of minutes."""


def explain(error: ValidationError) -> str:
    """Return one line that says which fields are wrong and what is expected. It quotes no value.

    Parameters:
        error: pydantic's.
    """
    problems = error.errors(include_url=False, include_context=False, include_input=False)
    lines = [
        f"{_field(problem['loc'])}: {_WORDING.get(problem['type'], problem['msg'])}"
        for problem in problems[:_MAX_PROBLEMS]
    ]
    if len(problems) > _MAX_PROBLEMS:
        lines.append(f"and {len(problems) - _MAX_PROBLEMS} more")
    return "; ".join(lines)


def _field(location: tuple[int | str, ...]) -> str:
    # The first name is that of the field; a place in a list may follow. The location is empty when the name itself
    # cannot be read.
    return printable(location[0]) if location else "a field's name"


def printable(name: object) -> str:
    """Return a name if it may be logged, else a description. The sender chose it: it may be an address.

    Parameters:
        name: a key of a JSON object.
    """
    return str(name) if _IDENTIFIER.fullmatch(str(name)) else "a name that is no identifier"
