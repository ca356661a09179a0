"""Finds what an id names, whatever sort of id it is. Every look-up is by an index."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from uuid import UUID

from sqlalchemy import Connection

from events.fields import STORABLE

MAX_SOURCES = 1_000
"""In the commands of so many sources an id is looked for, in the order of their names."""
MAX_BIGINT = 2**63 - 1


class Kind(StrEnum):
    """What was found, in the order in which it is returned."""

    LEARNER = "learner"
    EXAM = "exam"
    COURSE = "course"
    ATTEMPT = "attempt"
    EFFECT = "effect"
    COMMAND = "command"
    QUARANTINED = "quarantined"


@dataclass(frozen=True, slots=True)
class Found:
    """Something that an id names.

    Parameters:
        kind: what it is.
        id: the learner's, exam's, course's, effect's or command's id, an attempt's code, or a message's number.
        source: the sender of a command, or of a message in quarantine where that can be read. Otherwise None.
        label: what else tells it from others, without names of people.
    """

    kind: Kind
    id: str
    source: str | None
    label: str


# The distinct sources are found by a loose scan: each step looks up the next one in the index of (source, id).
_FIND = """
WITH RECURSIVE senders AS (
    (SELECT source FROM inbox ORDER BY source LIMIT 1)
    UNION ALL
    SELECT (SELECT inbox.source FROM inbox WHERE inbox.source > senders.source ORDER BY inbox.source LIMIT 1)
    FROM senders
    WHERE senders.source IS NOT NULL
), suspects AS (
    (SELECT source FROM quarantine WHERE source IS NOT NULL ORDER BY source LIMIT 1)
    UNION ALL
    SELECT (
        SELECT quarantine.source
        FROM quarantine
        WHERE quarantine.source > suspects.source
        ORDER BY quarantine.source
        LIMIT 1
    )
    FROM suspects
    WHERE suspects.source IS NOT NULL
), found AS (
    SELECT 1 AS rank, %(text)s AS id, NULL AS source, '' AS label
    WHERE EXISTS (SELECT FROM learners WHERE user_id = %(text)s)
        OR EXISTS (SELECT FROM outcomes WHERE user_id = %(text)s)
        OR EXISTS (SELECT FROM quarantine WHERE user_id = %(text)s)
    UNION ALL
    SELECT 2, exam_id, NULL, exam_name FROM exams WHERE exam_id = %(text)s
    UNION ALL
    SELECT 3, %(text)s, NULL, coalesce((SELECT name FROM courses WHERE course_id = %(text)s), '')
    WHERE EXISTS (SELECT FROM courses WHERE course_id = %(text)s)
        OR EXISTS (SELECT FROM exams WHERE course_id = %(text)s)
    UNION ALL
    SELECT
        4, coalesce(attempt_code, id::text), NULL,
        concat_ws(
            ' · ', 'exam ' || exam_id, 'learner ' || user_id, status,
            CASE WHEN removed_at IS NOT NULL THEN 'removed' END
        )
    FROM attempts
    WHERE id = ANY (ARRAY(
        (SELECT id FROM attempts WHERE coalesce(attempt_code, id::text) = %(text)s)
        UNION
        (SELECT id FROM attempts WHERE external_id = %(text)s ORDER BY id LIMIT %(limit)s)
        UNION
        (SELECT id FROM attempts WHERE id = %(uuid)s::uuid)
    ))
    UNION ALL
    SELECT 5, id::text, NULL, concat_ws(' · ', kind, state) FROM effects WHERE id = %(uuid)s::uuid
    UNION ALL
    SELECT 6, command.command_id, command.source, concat_ws(' · ', command.type, command.outcome)
    FROM (SELECT source FROM senders WHERE source IS NOT NULL LIMIT %(max_sources)s) AS sender
    CROSS JOIN LATERAL (
        SELECT inbox.source, inbox.command_id, inbox.type, outcomes.outcome
        FROM inbox
        LEFT JOIN outcomes ON outcomes.inbox_id = inbox.id
        WHERE inbox.source = sender.source AND inbox.command_id = %(text)s
        LIMIT 1
    ) AS command
    UNION ALL
    SELECT 7, message.id::text, message.source, message.code
    FROM (SELECT source FROM suspects WHERE source IS NOT NULL LIMIT %(max_sources)s) AS suspect
    CROSS JOIN LATERAL (
        SELECT id, source, code
        FROM quarantine
        WHERE quarantine.source = suspect.source
            AND quarantine.command_id = %(text)s
            AND quarantine.id IS DISTINCT FROM %(number)s
        ORDER BY id
        LIMIT %(limit)s
    ) AS message
    UNION ALL
    SELECT 7, id::text, source, code FROM quarantine WHERE id = %(number)s
)
SELECT rank, id, source, label
FROM found
ORDER BY rank, source COLLATE "C" NULLS FIRST, length(id), id COLLATE "C"
LIMIT %(limit)s
"""

_STORABLE = re.compile(STORABLE)
_KINDS = dict(enumerate(Kind, start=1))


def find(connection: Connection, text: str, limit: int = 20) -> Sequence[Found]:
    """Return everything that has this id, in a stable order: by kind, sender and id.

    A learner, an exam and a course are found by their ids, an attempt by its code, its id or its present external
    id, an effect by its id, a command by its id, whoever has sent it, and a message in quarantine by its number
    or the command's id. White space around the text does not count.

    Parameters:
        text: the whole id.
        limit: how many at most.
    """
    wanted = text.strip()
    if not wanted or not _STORABLE.match(wanted):
        return []
    values = {
        "text": wanted,
        "uuid": _uuid(wanted),
        "number": _number(wanted),
        "max_sources": MAX_SOURCES,
        "limit": limit,
    }
    rows = connection.exec_driver_sql(_FIND, values)
    return [Found(_KINDS[row.rank], row.id, row.source, row.label) for row in rows]


def _uuid(text: str) -> str | None:
    try:
        return str(UUID(text))
    except ValueError:
        return None


def _number(text: str) -> int | None:
    if not (text.isascii() and text.isdecimal()) or len(text) > len(str(MAX_BIGINT)):
        return None
    number = int(text)
    return number if number <= MAX_BIGINT else None
