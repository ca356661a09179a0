"""Reads and writes commands as bytes: one CloudEvents 1.0 event in structured JSON mode."""

import json
import re
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, NamedTuple, NoReturn
from uuid import uuid4

from pydantic import ConfigDict, Field, JsonValue, StringConstraints, TypeAdapter, ValidationError

from .commands import Command, model_of, read_data
from .errors import InvalidMessageError
from .fields import LINE_FEED, MAX_ID, Frozen, Id, Key, explain, printable
from .times import NO_SUCH_TIME, PATTERN, parse_time, render_time
from .tracing import read_traceparent
from .vocabulary import QuarantineCode

CONTENT_TYPE = "application/cloudevents+json"
AWAITED_HEADER = "invigilator-awaited"
"""The header of a message whose sender waits for the outcome. `consume` then wakes those who wait."""
MAX_BODY_BYTES = 64 * 1024
MAX_IDENTIFIED_BYTES = 1024 * 1024
"""In a longer message they are not looked for, because reading it takes too long."""

_CONTENT_TYPES = (CONTENT_TYPE, "application/json")
_CHARSETS = ("utf-8", "utf8")
_CHARSET = re.compile(r';\s*charset\s*=\s*"?([^";\s]*)', re.IGNORECASE)

_JSON_MEDIA_TYPE = r"^[\t -:<-~]*[/+][Jj][Ss][Oo][Nn][\t ]*(;[\t -~]*)?$"


def _but_for(*patterns: str) -> dict[str, JsonValue]:
    """Return members of a text's JSON Schema that refuse these patterns. The parser refuses them, too."""
    return {"not": {"anyOf": [{"pattern": pattern} for pattern in patterns]}}


_Time = Annotated[
    str,
    StringConstraints(pattern=PATTERN),
    Field(json_schema_extra=_but_for(LINE_FEED, *NO_SUCH_TIME)),
]
_MediaType = Annotated[
    str, StringConstraints(pattern=_JSON_MEDIA_TYPE), Field(json_schema_extra=_but_for(LINE_FEED))
]


class Envelope(Frozen):
    """The attributes of a CloudEvent that are checked. Extension attributes are allowed.

    Of those, only `traceparent` is read. It is not checked: a trace that cannot be read may not lose a command.
    """

    model_config = ConfigDict(extra="ignore")

    specversion: Literal["1.0"]
    id: Id
    source: Key
    type: Annotated[str, StringConstraints(min_length=1)]
    time: _Time | None = None
    datacontenttype: _MediaType | None = None


def parse(body: bytes, content_type: str | None = None) -> Command:
    """Read a command.

    Parameters:
        body: the message's body, at most `MAX_BODY_BYTES`.
        content_type: as the broker says; None or empty when it does not say.

    Raises:
        InvalidMessageError: the bytes are no command: `too_large`, `not_json`, `not_cloudevent`, `unknown_type` or
            `invalid_data`, with a detail that quotes no values. No bytes raise anything else.
    """
    if len(body) > MAX_BODY_BYTES:
        raise InvalidMessageError(
            QuarantineCode.TOO_LARGE, f"{len(body)} bytes; at most {MAX_BODY_BYTES} are allowed"
        )
    if content_type and content_type != CONTENT_TYPE:
        _check_content_type(content_type)
    return read_event(read_json(body))


def read_event(event: object) -> Command:
    """Read a command from a CloudEvent that `read_json` has returned.

    Raises:
        InvalidMessageError: it is no command: `not_cloudevent`, `unknown_type` or `invalid_data`.
    """
    if not isinstance(event, dict):
        raise InvalidMessageError(QuarantineCode.NOT_CLOUDEVENT, "must be a JSON object")
    envelope = _read_envelope(event)
    time = _read_time(envelope.time)
    model = model_of(envelope.type)
    data = event.get("data")
    if not isinstance(data, dict):
        raise InvalidMessageError(QuarantineCode.INVALID_DATA, "data: must be an object")
    traceparent = read_traceparent(event.get("traceparent"))
    return Command(envelope.source, envelope.id, read_data(model, data), time, traceparent)


def filled_in(source: str) -> dict[str, str]:
    """Return the members of a new event that a sender may leave to us, by name.

    Parameters:
        source: who sends it.
    """
    return {
        "specversion": "1.0",
        "id": str(uuid4()),
        "source": source,
        "time": datetime.now(UTC).isoformat(),
    }


class Identity(NamedTuple):
    """By what a message that is no valid command can be found. None stands for what cannot be read."""

    source: str | None = None
    id: str | None = None
    user_id: str | None = None
    """The learner whom its data names."""


def identify(body: bytes) -> Identity:
    """Return the source, the id and the learner of a message that is no valid command.

    People look for a message by these. So they are also read where `parse` gives up on the whole message, such
    as for a name in another encoding, a key that is there twice, or a list of one event. One that is itself there
    twice counts as unreadable.

    Parameters:
        body: any bytes. One that is longer than `MAX_IDENTIFIED_BYTES` is not read.
    """
    if len(body) > MAX_IDENTIFIED_BYTES:
        return Identity()
    try:
        event = _lenient_decoder.decode(body.decode("utf-8-sig", "surrogateescape"))
    except (ValueError, RecursionError):
        return Identity()
    if isinstance(event, list) and len(event) == 1:
        [event] = event
    if not isinstance(event, dict):
        return Identity()
    data = event.get("data")
    user_id = data.get("user_id") if isinstance(data, dict) else None
    return Identity(_valid(_source, event.get("source")), _valid(_id, event.get("id")), _valid(_id, user_id))


def _that_are_there_once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    times = Counter(key for key, _ in pairs)
    return {key: value for key, value in pairs if times[key] == 1}


def _integer(digits: str) -> int | None:
    # Python refuses to read integers of thousands of digits. No id is that long.
    return int(digits) if len(digits) <= MAX_ID else None


_lenient_decoder = json.JSONDecoder(object_pairs_hook=_that_are_there_once, parse_int=_integer, strict=False)


_source: TypeAdapter[str] = TypeAdapter(Key, config=ConfigDict(strict=True))
_id: TypeAdapter[str] = TypeAdapter(Id, config=ConfigDict(strict=True))


def _valid(adapter: TypeAdapter[str], value: object) -> str | None:
    try:
        return adapter.validate_python(value)
    except ValidationError:
        return None


def render(command: Command) -> bytes:
    """Write a command, so that `parse(render(command)) == command`. Fields that were not given are left out.

    Parameters:
        command: it is not checked. `parse` checks it.

    Raises:
        InvalidMessageError: `not_cloudevent` when the time has no offset.
    """
    text = json.dumps(to_event(command), ensure_ascii=False, separators=(",", ":"))
    # A lone surrogate in the id becomes bytes that are not UTF-8, which `parse` refuses.
    return text.encode("utf-8", "surrogatepass")


def to_event(command: Command) -> dict[str, Any]:
    """Return a command's CloudEvent as an object of JSON. It raises as `render` does.

    A trace that cannot be read is left out.
    """
    event: dict[str, Any] = {
        "specversion": "1.0",
        "id": command.id,
        "source": command.source,
        "type": command.type,
    }
    if command.time is not None:
        event["time"] = _render_time(command.time)
    if (traceparent := read_traceparent(command.traceparent)) is not None:
        event["traceparent"] = traceparent
    event["data"] = command.data.model_dump(mode="json", exclude_unset=True)
    return event


def _check_content_type(content_type: object) -> None:
    # The sender chose the type of this value, too.
    stated = content_type if isinstance(content_type, str) else ""
    media_type, *_ = stated.partition(";")
    if media_type.strip().lower() not in _CONTENT_TYPES:
        raise InvalidMessageError(
            QuarantineCode.NOT_CLOUDEVENT, f"content type: must be {' or '.join(_CONTENT_TYPES)}"
        )
    charset = _CHARSET.search(stated)
    if charset and charset[1].lower() not in _CHARSETS:
        raise InvalidMessageError(QuarantineCode.NOT_CLOUDEVENT, "content type: charset must be utf-8")


def read_json(body: bytes) -> Any:
    """Read JSON, and refuse what two readers might understand in two ways.

    Parameters:
        body: the caller bounds its size.

    Raises:
        InvalidMessageError: `not_json`. A member that is there twice, `NaN` and the infinities are no JSON.
    """
    try:
        return _decoder.decode(body.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise _not_json(f"not UTF-8 at byte {error.start}") from None
    except json.JSONDecodeError as error:
        raise _not_json(f"{error.msg} at line {error.lineno} column {error.colno}") from None
    except RecursionError:
        raise _not_json("nested too deeply") from None
    except ValueError:
        # Python refuses to read integers of thousands of digits.
        raise _not_json("a number is too long") from None


def _unique(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    # Two readers may disagree on which of two equal keys counts, so neither does.
    members = dict(pairs)
    if len(members) < len(pairs):
        [(twice, _)] = Counter(key for key, _ in pairs).most_common(1)
        raise _not_json(f"{printable(twice)}: is there twice")
    return members


def _refuse_constant(name: str) -> NoReturn:
    raise _not_json(f"{name} is not JSON")


def _not_json(detail: str) -> InvalidMessageError:
    return InvalidMessageError(QuarantineCode.NOT_JSON, detail)


_decoder = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_refuse_constant)


def _read_envelope(event: dict[str, Any]) -> Envelope:
    try:
        return Envelope.model_validate(event)
    except ValidationError as error:
        raise InvalidMessageError(QuarantineCode.NOT_CLOUDEVENT, explain(error)) from None


def _read_time(text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        return parse_time(text)
    except ValueError as error:
        raise InvalidMessageError(QuarantineCode.NOT_CLOUDEVENT, f"time: {error}") from None


def _render_time(time: object) -> str:
    if not isinstance(time, datetime):
        raise InvalidMessageError(
            QuarantineCode.NOT_CLOUDEVENT, "time: must be a datetime with an offset from UTC"
        )
    try:
        return render_time(time)
    except ValueError as error:
        raise InvalidMessageError(QuarantineCode.NOT_CLOUDEVENT, f"time: {error}") from None
