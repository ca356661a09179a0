"""The filter of effects in an address, such as `?state=failed&kind=send_status_email`."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from starlette.datastructures import QueryParams
from starlette.exceptions import HTTPException

from db.effect_filters import Filter
from db.states import EffectState
from events.fields import MAX_TEXT
from invigilator.acts.moments import moment_or_utc
from worker.kinds import EffectKind

_TEXTS = ("user_id", "course_id", "exam_id", "attempt", "cause", "error", "subscriber")
_TIMES = ("since", "until")
NAMES = ("state", "kind", *_TEXTS, *_TIMES)
"""The parameters of an address that filter effects."""


def read(query: QueryParams) -> Filter:
    """Return the filter that an address holds. A time without an offset is in UTC.

    Raises:
        HTTPException: something in it is not allowed.
    """
    document: dict[str, Any] = {"states": _chosen(query, "state"), "kinds": _chosen(query, "kind")}
    if not set(document["states"]) <= set(EffectState):
        raise _wrong(f"state: must be one of {', '.join(EffectState)}.")
    for name in (*_TEXTS, *_TIMES):
        value = query.get(name, "").strip()
        if "\x00" in value or len(value) > MAX_TEXT:
            raise _wrong(f"{name}: is no text that anything could have here.")
        if value:
            document[name] = _time(name, value) if name in _TIMES else value
    try:
        return Filter.from_json(document)
    except ValueError as error:
        raise _wrong(f"{error}.") from None


def written(wanted: Filter) -> dict[str, Any]:
    """Return a filter as the parameters of an address."""
    return parameters(wanted.as_json())


def parameters(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return a filter that was stored as JSON as the parameters of an address."""
    renamed = {"states": "state", "kinds": "kind"}
    return {renamed.get(name, name): value for name, value in document.items()}


def _chosen(query: QueryParams, name: str) -> list[str]:
    return list(dict.fromkeys(filter(None, query.getlist(name))))


def _time(name: str, value: str) -> str:
    try:
        return moment_or_utc(value).isoformat()
    except ValueError:
        raise _wrong(f"{name}: must be a time such as 2027-01-31T03:00.") from None


def _wrong(detail: str) -> HTTPException:
    return HTTPException(HTTPStatus.BAD_REQUEST, detail)


KINDS = tuple(kind.value for kind in EffectKind)
"""The kinds that a filter may choose from. An effect of an older or newer release may have another one."""
STATES = tuple(state.value for state in EffectState)
