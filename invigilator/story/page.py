"""The story as one file of HTML, which loads nothing, runs nothing, and prints on paper."""

from base64 import b64encode
from collections.abc import Iterable
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import TextIO

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from db.story import Heading
from invigilator.story.results import result
from invigilator.story.sentences import Told, moment

_CHUNK = 200  # parts of the template that are written together


def write(heading: Heading, entries: Iterable[Told], printed_at: datetime, file: TextIO) -> None:
    """Write the page. Entries are written as they come, so their number does not matter.

    Parameters:
        heading: whom it is about.
        entries: what happened, in order.
        printed_at: what the page says of its own age.
        file: takes the text.
    """
    stream = _ENVIRONMENT.get_template("page.html.jinja").stream(
        heading=heading,
        entries=entries,
        printed_at=printed_at,
        style=_style(heading.user_id),
        policy=policy(heading.user_id),
    )
    stream.enable_buffering(_CHUNK)
    file.writelines(stream)


def policy(user_id: str) -> str:
    """Return the Content-Security-Policy of a learner's page: nothing but its own style."""
    digest = b64encode(sha256(_style(user_id).encode()).digest()).decode()
    return f"default-src 'none'; style-src 'sha256-{digest}'"


def _style(user_id: str) -> str:
    return _ENVIRONMENT.get_template("page.css.jinja").render(user_id=user_id)


def css_escaped(text: str) -> str:
    """Return a text for the inside of a string of CSS. Each character is escaped, so none can end the string.

    Example:
        >>> css_escaped('a"')
        '\\\\61 \\\\22 '
    """
    return "".join(f"\\{ord(character):x} " for character in text)


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"css_escaped": css_escaped, "moment": moment, "result": result}
    return environment


_ENVIRONMENT = _environment()
