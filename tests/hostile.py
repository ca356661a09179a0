"""The corpus of hostile messages: what each is, and the quarantine's code for it, or None where it is a command."""

import bz2
import gzip
import json
import pickle
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from events.envelope import CONTENT_TYPE, MAX_BODY_BYTES
from events.vocabulary import QuarantineCode as Code

UPDATE = "exam.attempt.update-status.v1"
FIELDS = {"exam_id": "exam", "user_id": "u", "to_status": "started"}
PROOF = Path("/tmp/invigilator-was-executed")
TASK = [["7d0c9d1e-0000-4000-8000-000000000000"], {}, {"callbacks": None, "chord": None}]


class Bomb:
    """Creates a file when it is unpickled."""

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return Path.touch, (PROOF,)


@dataclass(frozen=True, slots=True)
class Hostile:
    """One message, and what must become of it."""

    name: str
    code: Code | None
    body: bytes
    content_type: str = CONTENT_TYPE
    headers: Mapping[str, Any] = field(default_factory=dict)


def event(command_id: str = "hostile", **attributes: Any) -> bytes:
    """A command, but for `attributes`."""
    whole = {"specversion": "1.0", "id": command_id, "source": "/hostile", "type": UPDATE, "data": FIELDS}
    return json.dumps(whole | attributes).encode()


def fields(command_id: str = "hostile", **others: object) -> bytes:
    """A command, but for some of its data."""
    return event(command_id, data=FIELDS | others)


def nested(depth: int, opening: bytes, closing: bytes, command_id: str = "hostile") -> bytes:
    """A command with an extension attribute that is nested so deep."""
    return event(command_id)[:-1] + b', "x": ' + opening * depth + b"1" + closing * depth + b"}"


def number(text: bytes, command_id: str = "hostile") -> bytes:
    """A command with a number as an extension attribute."""
    return nested(0, b"", b"", command_id)[:-2] + text + b"}"


def small_file_of_zeros(mebibytes: int) -> bytes:
    """What is that large once it is decompressed. It never is here."""
    compressor = zlib.compressobj(strategy=zlib.Z_RLE)  # as small, in a third of the time
    mebibyte = bytes(1024 * 1024)
    return b"".join(compressor.compress(mebibyte) for _ in range(mebibytes)) + compressor.flush()


GOOD = event()

NOT_JSON = {
    "empty": b"",
    "white space": b" \t\r\n",
    "cut": GOOD[:-1],
    "two of them": GOOD + b"\n" + GOOD,
    "NUL bytes": b"\x00" * 1000,
    "a NUL byte within": GOOD.replace(b"started", b"start\x00ed"),
    "a NUL byte after": GOOD + b"\x00",
    "a line break in a string": GOOD.replace(b"started", b"start\ned"),
    "single quotes": GOOD.replace(b'"', b"'"),
    "a comment": b"/* x */" + GOOD,
    "a comma too many": GOOD[:-1] + b",}",
    "raw surrogate": GOOD.replace(b"started", b"\xed\xa0\x80"),
    "CESU-8": GOOD.replace(b"started", b"\xed\xa0\xbd\xed\xb8\x80"),
    "overlong UTF-8": GOOD.replace(b"started", b"\xc0\x80"),
    "beyond Unicode": GOOD.replace(b"started", b"\xf4\x90\x80\x80"),
    "UTF-16": GOOD.decode().encode("utf-16"),
    "UTF-16 without a mark": GOOD.decode().encode("utf-16-le"),
    "UTF-32": GOOD.decode().encode("utf-32"),
    "UTF-8 with a mark": b"\xef\xbb\xbf" + GOOD,
    "latin-1": GOOD.replace(b"started", b"st\xe4rted"),
    "EBCDIC": GOOD.decode().encode("cp500"),
    "gzip": gzip.compress(GOOD),
    "bzip2": bz2.compress(GOOD),
    "a small file of 64 MiB": small_file_of_zeros(64),
    "a pickle": pickle.dumps(Bomb()),
    "an old pickle": pickle.dumps(Bomb(), protocol=0),
    "YAML": b"!!python/object/apply:os.system ['touch /tmp/invigilator-was-executed']",
    "msgpack": b"\x82\xa2id\xa11\xa6source\xa11",
    "XML": b'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]><x>&a;</x>',
    "deep lists": b"[" * MAX_BODY_BYTES,
    "deep objects": b'{"a":' * (MAX_BODY_BYTES // 5),
    "deep in a good one": nested(5000, b"[", b"]"),
    "deep objects in a good one": nested(5000, b'{"a":', b"}"),
    "NaN": number(b"NaN"),
    "Infinity": number(b"Infinity"),
    "-Infinity": number(b"-Infinity"),
    "an integer of 60,000 digits": number(b"9" * 60_000),
    "a hexadecimal number": number(b"0x10"),
    "an octal number": number(b"0755"),
    "a number with a plus": number(b"+1"),
    "the same key twice": GOOD[:-1] + b', "id": "other"}',
    "the same key twice, once escaped": GOOD[:-1] + b', "\\u0069d": "other"}',
    "the same key twice in the data": GOOD.replace(b'"exam_id"', b'"exam_id": "1", "exam_id"'),
    "the same key twice, ignored": GOOD[:-1] + b', "x": {"a": 1, "a": 1}}',
    "a bad escape": GOOD.replace(b"started", b"\\x41"),
    "a cut escape": GOOD.replace(b"started", b"\\ud8"),
}
NOT_CLOUDEVENT = {
    "null": b"null",
    "a number": b"1e400",
    "a string": b'"' + b"x" * 1000 + b'"',
    "a list of them": b"[" + GOOD + b"]",
    "an empty object": b"{}",
    "only the data": json.dumps(FIELDS).encode(),
    "a Celery message": json.dumps(TASK).encode(),
    "an old Celery message": json.dumps(
        {"task": "effects.set_credit_status", "id": "1", "args": [1]}
    ).encode(),
    "a kombu envelope with nothing in it": b'{"body": null, "properties": {}}',
    "half a surrogate as id": event("\ud800"),
    "half a surrogate as source": event(source="\udfff"),
    "NUL in the id": event("a\x00"),
    "an id that is too long": event("x" * 256),
    "an id of 4000 digits": GOOD.replace(b'"hostile"', b"9" * 4000),
    "a float as id": event(id=1e300),
    "true as id": event(id=True),
    "another version": event(specversion="1.1"),
    "a number as version": event(specversion=1.0),
    "a time beyond time": event(time="9999-12-31T23:59:59.999999-23:59"),
    "a time before time": event(time="0000-00-00T00:00:00Z"),
    "a time with many digits": event(time="2026-01-01T00:00:00." + "9" * 10_000),
    "Arabic digits": event(time="٢٠٢٦-01-01T00:00:00Z"),
    "XML said to be inside": event(datacontenttype="text/xml"),
}
UNKNOWN_TYPE = {
    "another version of a type": event(type="exam.attempt.create.v2"),
    "a type with NUL": event(type=UPDATE + "\x00"),
    "a type with a space": event(type=UPDATE + " "),
    "a type in Cyrillic": event(type=UPDATE.replace("a", "а")),
    "a very long type": event(type="x" * 60_000),
    "the name of a Celery task": event(type="effects.set_credit_status"),
}
INVALID_DATA = {
    "data as a string": event(data=json.dumps(FIELDS)),
    "data in base64": GOOD.replace(b'"data"', b'"data_base64"'),
    "data as a list": event(data=[FIELDS]),
    "__proto__": fields(__proto__={"admin": True}),
    "__class__": fields(__class__="os.system"),
    "ten thousand unknown fields": event(data=FIELDS | {f"f{n}": 1 for n in range(4000)}),
    "a key that is half a surrogate": event(data=FIELDS | {"\ud800": 1}),
    "a key with NUL": event(data=FIELDS | {"\x00": 1}),
    "a very long key": event(data=FIELDS | {"k" * 50_000: 1}),
    "an empty key": event(data=FIELDS | {"": 1}),
    "half a surrogate": fields(user_id="\udc00"),
    "NUL": fields(user_id="\x00"),
    "a list as id": fields(user_id=["u"]),
    "an object as id": fields(user_id={"$ne": None}),
    "a huge number as id": GOOD.replace(b'"u"', b"1e400"),
    "an integer of 4000 digits as id": GOOD.replace(b'"u"', b"9" * 4000),
    "a status that is a number": fields(to_status=0),
    "a status that is a list": fields(to_status=["started"]),
    "a truth that is 1": fields(cascade_effects=1),
    "a mail header in an address": event(
        type="learner.upsert.v1",
        data={"user_id": "u", "username": "n", "email": "a@b\r\nBcc: c@d"},
    ),
    "too many minutes": event(
        type="exam.upsert.v1",
        data={"exam_id": "e", "course_id": "c", "content_id": "x", "exam_name": "", "time_limit_mins": 2**31},
    ),
}
TOO_LARGE = {
    "64 KiB and a byte": GOOD.ljust(MAX_BODY_BYTES + 1),
    "a MiB of lists": b"[" * 1024 * 1024,
    "three MiB of anything": bytes(range(256)) * 4096 * 3,
}
ACCEPTED = {
    "64 KiB": event("size").ljust(MAX_BODY_BYTES),
    "an ignored half surrogate": event("half", x="\ud800"),
    "an ignored NUL": event("nul", x="\x00", **{"\x00": 1}),
    "an ignored huge number": number(b"1e400", "huge"),
    "an ignored tiny number": number(b"-1e-400", "tiny"),
    "an ignored integer of 4000 digits": number(b"9" * 4000, "digits"),
    "an ignored nest": nested(100, b'[{"a":', b"}]", "nest"),
    "an unknown status": fields("status", to_status="\x00\ud83d\ude00' OR 1=1; --"),
    "an id that is SQL": fields("'; DROP TABLE attempts; --", user_id="{{7*7}}${jndi:ldap://x}%s%n"),
    "an id from right to left": fields("\u202etxt.exe", exam_id="\u200b"),
    "an id that is a terminal's escape": event("\x1b[2J\x1b]0;x\x07"),
}
WRONG_TYPES = [
    "text/plain",
    "application/x-python-serialize",
    "application/x-yaml",
    "application/x-msgpack",
    "application/octet-stream",
    "application/cloudevents-batch+json",
    "application/json; charset=utf-16",
    ";" * 200,
]


def _all(code: Code | None, bodies: Mapping[str, bytes]) -> list[Hostile]:
    return [Hostile(name, code, body) for name, body in bodies.items()]


CORPUS = [
    *_all(Code.NOT_JSON, NOT_JSON),
    *_all(Code.NOT_CLOUDEVENT, NOT_CLOUDEVENT),
    *_all(Code.UNKNOWN_TYPE, UNKNOWN_TYPE),
    *_all(Code.INVALID_DATA, INVALID_DATA),
    *_all(Code.TOO_LARGE, TOO_LARGE),
    *_all(None, ACCEPTED),
    *(Hostile(f"content type {one}", Code.NOT_CLOUDEVENT, GOOD, one) for one in WRONG_TYPES),
    Hostile("compressed", Code.NOT_JSON, gzip.compress(GOOD), headers={"compression": "application/x-gzip"}),
    Hostile("said to be compressed", Code.NOT_JSON, GOOD, headers={"compression": "nonsense"}),
    Hostile("a task", Code.NOT_CLOUDEVENT, json.dumps(TASK).encode(), "application/json", {"task": "x"}),
    Hostile(
        "hostile headers", Code.NOT_JSON, b"", headers={"\x00": "\x00", "x" * 200: "y" * 5000, "z": "\n"}
    ),
    Hostile("many headers", Code.NOT_JSON, b"x", headers={f"h{n}": str(n) for n in range(500)}),
]
"""Every one stands for itself: a name for pytest, and the code expected."""
