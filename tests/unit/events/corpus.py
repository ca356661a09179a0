"""A corpus of messages: each attribute and each field of each type with valid, invalid and borderline values."""

from collections.abc import Iterator
from typing import Any

from events.commands import COMMAND_TYPES, CommandData
from events.envelope import Envelope
from events.vocabulary import Status
from tests.unit.events.messages import event, event_with, without_dots

UPDATE = "exam.attempt.update-status.v1"
LONE_SURROGATE = "\ud800"

TEXTS = (
    "",
    " ",
    "x",
    "7",
    *("x" * length for length in (254, 255, 256, 999, 1000, 1001)),
    *("\U0001f600" * length for length in (255, 256, 1000, 1001)),
    "\0",
    "a\0b",
    "\ud7ff\ue000\uffff\U0010ffff",
    LONE_SURROGATE,
    "a\udfff",
    "\udc00\ud800",
    "line\n",
    "\n",
    "\x1b[31m\r\t\x85\u2028\ufeff",
    "null",
    "true",
)
NUMBERS = (
    *(0, -0.0, 1, -1, 7, -7, 7.0, -7.0, 7.5, 0.1, 1e3, 1e300, -1e300, 5e-324),
    *(2**31 - 1, 2**31, 2**31 + 0.0, 2**53 + 1, 2**63, -(2**63) - 1),
    *(10**254, 10**255 - 1, 10**255, 1 - 10**254, -(10**254), 10**4000),
)
OTHERS: tuple[Any, ...] = (..., None, True, False, [], [7], ["7"], {}, {"": 1}, {"7": "7"})
ADDRESSES = (
    *("a@b", "a+b@m\xfcnchen.example", "\U0001f600@\u4e16", "a@" + "b" * 252, "a@" + "b" * 253),
    *(
        "@",
        "a@",
        "@b",
        "a@b@c",
        "a b@c",
        "a@b ",
        "a@b\n",
        "\na@b",
        "a@b\r\nBcc: c@d",
        "a@b\0",
        "a@b\x1b",
        "a@b\x7f",
    ),
    *(
        f"a@b{chr(character)}"
        for character in (0x85, 0x9F, 0xA0, 0x1680, 0x180E, 0x2003, 0x200B, 0x2028, 0x2029)
    ),
    *(
        f"a@b{chr(character)}"
        for character in (0x202F, 0x205F, 0x3000, 0xFEFF, 0xD7FF, 0xD800, 0xDFFF, 0xE000)
    ),
)
STATUSES = (*Status, "Verified", "VERIFIED", " verified", "verified ", "verified\n", "verifed", "resumed")
CHOICES = ("reject", "ignore", "Ignore", "REJECT", "ignore\n", "ignored")
TYPES = (*COMMAND_TYPES, "exam.upsert.v2", "Exam.Upsert.V1", "course.upsert.v1\n")
VERSIONS = ("1.0", 1.0, 1, "1", "1.0.0", "0.3", "1.1", "1.0\n")
TIMES = (
    *(
        "2026-03-01T09:00:00Z",
        "2026-03-01t09:00:00z",
        "2026-03-01T09:00:00-00:00",
        "2026-03-01T09:00:00+23:59",
    ),
    *("2026-03-01T09:00:00.5Z", "2026-03-01T09:00:00.123456789Z", "2026-03-01T09:00:00." + "9" * 1000 + "Z"),
    *("2016-12-31T23:59:60Z", "2016-12-31T23:59:60+01:00", "2016-12-31T23:59:61Z", "2016-12-31T23:60:00Z"),
    *("2026-03-01", "09:00:00Z", "2026-03-01T09:00:00", "2026-03-01 09:00:00Z", "2026-03-01T09:00Z"),
    *("20260301T090000Z", "2026-03-01T09:00:00,5Z", "2026-03-01T09:00:00.Z", "2026-03-01T09:00:00+0200"),
    *("2026-03-01T09:00:00+24:00", "2026-03-01T24:00:00Z", "2026-3-1T9:00:00Z", "+2026-03-01T09:00:00Z"),
    *("\uff12026-03-01T09:00:00Z", "2026-03-01T09:00:00Z\n", " 2026-03-01T09:00:00Z", "2026-060T09:00:00Z"),
    *("2026-00-01T09:00:00Z", "2026-13-01T09:00:00Z", "2026-01-00T09:00:00Z", "2026-01-32T09:00:00Z"),
    *(f"2026-{month:02}-{day}T09:00:00Z" for month in range(1, 13) for day in (28, 29, 30, 31)),
    *(
        f"{year}-02-29T09:00:00Z"
        for year in ("0004", "0100", "0400", "1900", "2000", "2023", "2024", "2026", "2100")
    ),
    *("0000-01-01T00:00:00Z", "0000-02-29T00:00:00Z", "0000-12-31T23:59:59-01:00"),
    *(
        "0001-01-01T00:00:00Z",
        "0001-01-01T00:00:00+00:00",
        "0001-01-01T00:00:00-01:00",
        "0001-01-01T00:00:00+01:00",
    ),
    *("0001-01-01T00:00:00.5+00:01", "0001-01-02T00:00:00+23:59"),
    *(
        "9999-12-31T23:59:60Z",
        "9999-12-31T23:59:59.9-00:00",
        "9999-12-31T23:59:59+01:00",
        "9999-12-31T23:59:59-01:00",
    ),
    *("9999-12-31T23:59:59.5-00:01", "9999-12-30T23:59:59-23:59"),
)
MEDIA_TYPES = (
    *(
        "application/json",
        "text/JSON",
        "application/vnd.acme+JSON; charset=utf-8",
        "application/json ;x",
        "+json",
    ),
    *(
        "application/json\t",
        "application/json\n",
        "application/json;x\n",
        "application/json; x\r",
        "application/json;",
    ),
    *(
        "json",
        "text/xml",
        "application/jsonx",
        "application/json x",
        "text/xml; application/json",
        "\xe9/json",
    ),
    *(
        "text/xml;+json",
        "\ud800/json",
        "application/json;\ud800",
        "application/json;\0",
        "application/json;\xe9",
    ),
)

ANYTHING = (*TEXTS, *NUMBERS, *OTHERS, *ADDRESSES, *STATUSES, *CHOICES)
ATTRIBUTES = (*ANYTHING, *TYPES, *VERSIONS, *TIMES, *MEDIA_TYPES)


def messages() -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield pairs of a type and a message of it in which one attribute or one field has a value of the corpus."""
    for name in (*Envelope.model_fields, "data", "subject", "specVersion", LONE_SURROGATE):
        for value in ATTRIBUTES:
            yield UPDATE, without_dots(event(UPDATE) | {name: value})
    for type_, model in COMMAND_TYPES.items():
        for name in _names(model):
            for value in ANYTHING:
                yield type_, event_with(type_, **{name: value})


def _names(model: type[CommandData]) -> Iterator[str]:
    yield from model.model_fields
    yield from ("to_staus", "", "\0", LONE_SURROGATE, "type", "User_id", "user_id ")
