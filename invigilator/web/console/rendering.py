"""Writes pages. What comes from outside is escaped."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from starlette.responses import HTMLResponse

HOME = "/console/"
"""The path of the console."""
HERE = Path(__file__).parent
_UNITS = (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1))
_TIME = Markup('<time datetime="{}">{}</time>')


def address(page: str, **query: object) -> str:
    """Return the address of a page. What is None is left out.

    Example:
        >>> address("effect", id=7, next=None)
        '/console/effect?id=7'
    """
    given = {name: value for name, value in query.items() if value is not None}
    return HOME + page + (f"?{urlencode(given, doseq=True)}" if given else "")


def seconds(number: float | None) -> str:
    """Return a duration in its two greatest units.

    Example:
        >>> seconds(11_042)
        '3 h 4 min'
        >>> seconds(0.4)
        '0 s'
    """
    if number is None:
        return "–"
    left, parts = int(number), []
    for unit, size in _UNITS:
        if left >= size:
            parts.append(f"{left // size} {unit}")
            left %= size
    return " ".join(parts[:2]) or "0 s"


def moment(time: datetime | str | None) -> str:
    """Return a time as an element of HTML, in UTC and to the second."""
    if time is None:
        return "–"
    if isinstance(time, str):
        time = datetime.fromisoformat(time)
    time = time.astimezone(UTC)
    return _TIME.format(time.isoformat(), time.strftime("%Y-%m-%d %H:%M:%S UTC"))


def age(time: datetime | None) -> str:
    """Return how long ago a time is."""
    return "–" if time is None else seconds((datetime.now(UTC) - time) / timedelta(seconds=1))


def number(count: float) -> str:
    """Return a number with its thousands set apart.

    Example:
        >>> number(1234567)
        '1,234,567'
    """
    return f"{count:,.0f}"


def pretty(value: object) -> str:
    """Return a value as JSON on several lines."""
    return json.dumps(value, indent=2, ensure_ascii=False, default=str)


def brief(value: object) -> str:
    """Return a value as JSON on one line."""
    return json.dumps(value, ensure_ascii=False, default=str)


def _now() -> datetime:
    return datetime.now(UTC)


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "age": age,
        "brief": brief,
        "moment": moment,
        "number": number,
        "pretty": pretty,
        "seconds": seconds,
    }
    environment.globals |= {"address": address, "now": _now}
    return environment


ENVIRONMENT = _environment()


def render(template: str, values: Mapping[str, Any], status: int = HTTPStatus.OK) -> HTMLResponse:
    """Return a page."""
    return HTMLResponse(ENVIRONMENT.get_template(template).render(values), status)


def refusal(status: HTTPStatus, detail: str) -> HTMLResponse:
    """Return the page that says why there is no other one.

    Parameters:
        detail: one sentence that says what to do.
    """
    return render("refusal.html", {"title": status.phrase, "detail": detail}, status)
