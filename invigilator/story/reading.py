"""Reads one learner's whole story from the database."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain

from sqlalchemy import Connection

from db import story, timeline
from db.story import Heading
from db.timeline import Entry
from invigilator.story.sentences import Teller, Told
from worker.kinds import EffectKind


@dataclass(frozen=True, slots=True)
class Story:
    """A learner's story. Its entries come from the database as they are read, and can be read once.

    Parameters:
        heading: whom it is about.
        entries: what happened, oldest first.
    """

    heading: Heading
    entries: Iterator[Entry]

    def told(self) -> Iterator[Told]:
        """Return the entries in plain words."""
        return map(Teller(self.heading.exam_names()).tell, self.entries)


def read(connection: Connection, user_id: str) -> Story | None:
    """Return a learner's story. None for nobody's id.

    Parameters:
        connection: must stay open while the entries are read.
        user_id: the learner.
    """
    heading = story.heading(connection, user_id)
    entries = timeline.stream(connection, user_id, mail_kind=EffectKind.SEND_STATUS_EMAIL)
    first = next(entries, None)
    if first is None:
        return Story(heading, iter(())) if heading.is_described else None
    return Story(heading, chain([first], entries))
