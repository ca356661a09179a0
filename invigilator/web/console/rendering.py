"""Writes pages. What comes from outside is escaped."""

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape
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


_LABELS = {
    "user_id": "learner",
    "exam_id": "exam",
    "course_id": "course",
    "error": "error contains",
    "since": "owed since",
    "until": "owed before",
    "subscriber": "subscriber",
    "source": "sender",
    "last": "up to message",
    "after": "after position",
}


def label(name: str) -> str:
    """Return what a member of a filter is called before its value.

    Example:
        >>> label("states"), label("exam_id")
        ('state', 'exam')
    """
    return _LABELS.get(name, name.removesuffix("s"))


_COLUMN = re.compile(r'<th scope="col"[^>]*>(.*?)</th>')
_ROW = re.compile(r"<tr>.*?</tr>", re.DOTALL)
_CELL = re.compile(r"<t[dh]\b")


def labelled(table: Markup) -> Markup:
    """Return a table of a template whose cells say which column they are in, for screens where a row is a card.

    Example:
        >>> labelled(Markup('<th scope="col">Kind</th><tbody><tr><td>reset</td></tr>'))
        Markup('<th scope="col">Kind</th><tbody><tr><td data-label="Kind">reset</td></tr>')
    """
    head, _, body = str(table).partition("<tbody>")
    names = [Markup(name).striptags() for name in _COLUMN.findall(head)]  # noqa: S704 - ours

    def of_row(row: re.Match[str]) -> str:
        left = iter(names)
        return _CELL.sub(lambda cell: f'{cell[0]} data-label="{escape(next(left))}"', row[0])

    return Markup(f"{head}<tbody>{_ROW.sub(of_row, body)}")  # noqa: S704 - as safe as it was


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
        "label": label,
        "labelled": labelled,
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
