"""The story as one file of HTML, which loads nothing, runs nothing, and prints on paper."""

from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import TextIO

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from db.story import Heading
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
    page = _environment().get_template("page.html.jinja")
    stream = page.stream(heading=heading, entries=entries, printed_at=printed_at)
    stream.enable_buffering(_CHUNK)
    file.writelines(stream)


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["moment"] = moment
    return environment
