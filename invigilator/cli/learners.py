"""`invigilator learners`: one learner's whole story, and their erasure."""

import shutil
import sys
import textwrap
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TextIO

import click

from invigilator.cli.options import JSON
from invigilator.cli.output import failing, one_line, print_document, say, to_json, warn

if TYPE_CHECKING:
    from db.timeline import Entry
    from invigilator.story.reading import Story
    from invigilator.story.sentences import Told

NOBODY = "nobody of this id is known; `invigilator attempts list` shows whose attempts there are"
ATTEMPT_COLUMNS = (
    "attempt_code", "exam_id", "exam_name", "course_id", "status", "started_at", "completed_at", "removed_at",
)  # fmt: skip
LONGEST_LINE = 100  # characters; longer ones are hard to read
SHORTEST_LINE = 40

app = click.Group("learners", help="Tell what happened to a learner.", no_args_is_help=False)


@app.command("show")
@click.argument("user_id", metavar="U")
@JSON
@click.option(
    "--html",
    "page",
    type=click.File("w", encoding="utf-8", lazy=True, atomic=True),
    metavar="FILE",
    help="Write a page that can be printed, instead.",
)
def show(user_id: str, as_json: bool, page: TextIO | None) -> None:
    """Tell everything that happened to a learner, in the order in which it was handled.

    The text and the page hold the learner's name. The JSON does not: it is the timeline of the HTTP API.
    """
    if as_json and page is not None:
        raise click.UsageError("choose one of --json and --html")
    from invigilator.cli.database import reading
    from invigilator.story.reading import read

    with reading() as connection:
        story = read(connection, user_id)
        if story is None:
            warn(NOBODY)
        with failing(story is None):
            if as_json:
                _print_json(() if story is None else story.entries)
            elif story is not None:
                _print_text(story) if page is None else _write_page(story, page)


def _print_json(entries: Iterable["Entry"]) -> None:
    """Print one line, piece by piece: a story may have thousands of entries."""
    sys.stdout.write('{"entries": [')
    for number, entry in enumerate(entries):
        sys.stdout.write((", " if number else "") + to_json(entry.document()))
    say('], "next": null}')


def _write_page(story: "Story", page: TextIO) -> None:
    from invigilator.story.page import write

    write(story.heading, story.told(), datetime.now(UTC), page)


def _print_text(story: "Story") -> None:
    from invigilator.story.results import result

    heading = story.heading
    print_document(
        {
            "learner": heading.user_id,
            "name": heading.full_name,
            "username": heading.username,
            "erased_at": heading.erased_at,
            "attempts": [{name: getattr(one, name) for name in ATTEMPT_COLUMNS} for one in heading.attempts],
        },
        as_json=False,
    )
    for attempt in heading.attempts:
        say("")
        say(one_line(f"Result of the attempt {attempt.attempt_code} at {attempt.exam_name}:"))
        for line in _wrapped(result(attempt), "    "):
            say(line)
    say("")
    for one in story.told():
        for line in _lines(one):
            say(line)


def _lines(one: "Told") -> Iterator[str]:
    from invigilator.story.sentences import moment, plain

    happened = "" if one.at is None else f" It happened at {moment(one.at)}."
    yield (
        one_line(one.what) if one.recorded_at is None else f"{moment(one.recorded_at)}  {one_line(one.what)}"
    )
    yield from _wrapped(one_line(plain(one.text)) + happened, "    ")
    if one.reference:
        yield from _wrapped(f"({one_line(one.reference)})", "    ")


def _wrapped(text: str, indent: str) -> Iterator[str]:
    if not sys.stdout.isatty():
        yield indent + text
        return
    width = max(SHORTEST_LINE, min(LONGEST_LINE, shutil.get_terminal_size().columns))
    yield from textwrap.wrap(
        text, width, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False
    )


@app.command("erase")
@click.argument("user_id", metavar="U")
@click.option(
    "--reason", required=True, metavar="TEXT", help="Why, without a name. The audit keeps it for ever."
)
@JSON
def erase(user_id: str, reason: str, as_json: bool) -> None:
    """Take away a learner's names and addresses. The record stays, under the id.

    Mails that are still owed are cancelled. It cannot be undone. A second time finds nothing to take away.
    """
    from invigilator.acts import erasure
    from invigilator.cli.person import acting_person

    with acting_person() as (connection, actor):
        erased = erasure.erase(connection, user_id, actor, reason)
    print_document(erasure.counts(erased), as_json)
