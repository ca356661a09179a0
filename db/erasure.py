"""Takes away a learner's names and addresses, wherever the database may have them. The record stays.

docs/decisions/0042-erasure.md has the places, and what is left.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote
from uuid import UUID

from sqlalchemy import Connection

from db import operators
from events.envelope import identify

ERASED = "(erased)"
"""What stands where a text named the learner."""
PAGE_ROWS = 20
"""So many bodies of messages are looked at together."""
_PLAIN = re.compile(r"[\w.-]+", re.ASCII)
_ESCAPED = re.compile(r"\\(?:u([0-9a-fA-F]{4})|([/\"\\]))")


class NamesLearnerError(ValueError):
    """A text holds a name or an address of the learner."""


@dataclass(frozen=True, slots=True)
class Erased:
    """What was taken away. A second erasure finds nothing.

    Parameters:
        names: whether the learner had names and addresses.
        mails: those that are cancelled, each with the state that it had.
        messages: how many in quarantine have lost their bodies and headers.
        reasons: of how many acts the reason is gone.
        texts: how many texts of errors and payloads named the learner.
    """

    names: bool
    mails: Mapping[UUID, str]
    messages: int
    reasons: int
    texts: int


# --- the learner -------------------------------------------------------------------------------------------

_LOCK_LEARNER = """
SELECT username, email, full_name
FROM learners
WHERE user_id = %(user_id)s
FOR NO KEY UPDATE
"""

_IS_NAMED = """
SELECT EXISTS (SELECT FROM outcomes WHERE user_id = %(user_id)s)
    OR EXISTS (SELECT FROM quarantine WHERE user_id = %(user_id)s)
"""

_ERASE_LEARNER = """
UPDATE learners
SET username = 'erased-' || user_id,
    email = '',
    full_name = NULL,
    language = NULL,
    time_zone = NULL,
    erased_at = clock_timestamp()
WHERE user_id = %(user_id)s AND email <> ''
"""

# --- effects -----------------------------------------------------------------------------------------------

_EFFECTS = """
SELECT id FROM effects WHERE attempt_id = ANY (ARRAY(SELECT id FROM attempts WHERE user_id = %(user_id)s))
UNION ALL
SELECT id FROM effects WHERE attempt_id IS NULL AND user_id = %(user_id)s
"""

_MAILS = "SELECT id FROM effects WHERE id = ANY (%(effect_ids)s::uuid[]) AND kind = %(mail)s"

# An act touches the learner if it is about them, or has changed something of theirs. All its rows have one reason,
# which goes if the act touches nobody else, or if it names the learner. Of others it goes if it has the address.
_ERASE_REASONS = """
WITH touching AS (
    SELECT act_id
    FROM acts
    WHERE user_id = %(user_id)s
        OR filter ->> 'attempt' = ANY (ARRAY(
            SELECT coalesce(attempt_code, id::text) FROM attempts WHERE user_id = %(user_id)s
        ))
        OR EXISTS (
            SELECT
            FROM jsonb_path_query(details, '$.before[*]') AS message
            WHERE message ->> 'user_id' = %(user_id)s
        )
    UNION
    SELECT acts.act_id
    FROM act_targets AS target
    JOIN acts ON acts.sequence = target.act_sequence
    WHERE target.effect_id = ANY (%(effect_ids)s::uuid[])
), shared AS (
    SELECT act.act_id
    FROM acts AS act
    WHERE act.act_id = ANY (ARRAY(SELECT act_id FROM touching))
        AND (
            act.user_id <> %(user_id)s
            OR EXISTS (
                SELECT
                FROM act_targets AS target
                WHERE target.act_sequence = act.sequence AND target.effect_id <> ALL (%(effect_ids)s::uuid[])
            )
            OR EXISTS (
                SELECT
                FROM jsonb_path_query(act.details, '$.before[*]') AS message
                WHERE message ->> 'user_id' IS DISTINCT FROM %(user_id)s
            )
        )
)
UPDATE acts
SET reason = NULL, salt = NULL
WHERE reason IS NOT NULL
    AND (
        reason ~* %(address)s::text
        OR (
            act_id = ANY (ARRAY(SELECT act_id FROM touching))
            AND (act_id <> ALL (ARRAY(SELECT act_id FROM shared)) OR reason ~* %(names)s::text)
        )
    )
"""

# --- texts -------------------------------------------------------------------------------------------------

_TEXTS = (
    """
    UPDATE tries SET error = %(erased)s
    WHERE effect_id = ANY (%(effect_ids)s::uuid[]) AND error ~* %(names)s
    """,
    """
    UPDATE effects SET last_error = %(erased)s
    WHERE id = ANY (%(effect_ids)s::uuid[]) AND last_error ~* %(names)s
    """,
    """
    UPDATE effects SET payload = payload || '{"requested_by": null}'
    WHERE id = ANY (%(effect_ids)s::uuid[]) AND payload ->> 'requested_by' ~* %(names)s
    """,
)
"""What is said of the learner's own effects."""

# No index leads from a learner to their events, so this is asked only where an error named the learner.
_TOLD = """
UPDATE events SET data = jsonb_set(data, '{reason}', to_jsonb(%(erased)s::text))
WHERE user_id = %(user_id)s AND data ->> 'reason' ~* %(names)s
"""

_SHARED_TEXTS = (
    "UPDATE causes SET reason = %(erased)s WHERE reason ~* %(names)s",
    "UPDATE circuits SET reason = %(erased)s WHERE reason ~* %(names)s",
    "UPDATE subscribers SET reason = %(erased)s WHERE reason ~* %(names)s",
    "UPDATE pauses SET reason = %(erased)s WHERE reason ~* %(names)s",
    """
    UPDATE bulk_acts SET filter = jsonb_set(filter, '{error}', to_jsonb(%(erased)s::text))
    WHERE filter ->> 'error' ~* %(names)s
    """,
)
"""What is said of a service or a kind, or was looked for, and so may name anybody."""

# --- messages in quarantine --------------------------------------------------------------------------------

# A message that names nobody may be of a release that did not look for the learner, or be too broken to say. This
# finds those that may hold the address, in upper case, with characters that JSON (`\u`) or a form (`%`) has
# escaped, or in UTF-16 or UTF-32, too.
_SUSPECTS = r"""
SELECT id
FROM quarantine
WHERE erased_at IS NULL
    AND (user_id = %(user_id)s OR (
        user_id IS NULL
        AND (
            position(convert_to(%(user_id)s, 'UTF8') IN body) > 0
            OR (%(part)s <> '' AND (
                position(convert_to('\u', 'UTF8') IN body) > 0
                OR position(%(part)s IN lower(replace(encode(body, 'escape'), '\000', ''))) > 0
            ))
        )
    ))
ORDER BY id
"""

_BODIES = "SELECT id, user_id, body FROM quarantine WHERE id = ANY (%(ids)s::bigint[]) ORDER BY id"

_ERASE_MESSAGES = """
UPDATE quarantine
SET body = '', headers = '{}', detail = %(erased)s, user_id = %(user_id)s, erased_at = clock_timestamp()
WHERE id = ANY (%(ids)s::bigint[])
"""


def erase(connection: Connection, user_id: str, *, mail_kind: str, reason: str) -> Erased | None:
    """Take away what names a learner, in the caller's transaction. Commands of the learner wait for it.

    Parameters:
        mail_kind: the kind of the effects that are mails.
        reason: what the audit is to say. It stays, so it may not name the learner.

    Returns:
        what was taken away; None if nobody of this id is known.

    Raises:
        NamesLearnerError: the reason names the learner. Nothing was changed.
    """
    learner: Any = connection.exec_driver_sql(_LOCK_LEARNER, {"user_id": user_id}).one_or_none()
    if learner is None and not connection.exec_driver_sql(_IS_NAMED, {"user_id": user_id}).scalar_one():
        return None
    has_names = learner is not None and learner.email != ""
    names = [learner.email, learner.username, learner.full_name or ""] if has_names else []
    if has_names and re.search(_any_of(names), reason, re.IGNORECASE):
        raise NamesLearnerError
    effect_ids = connection.exec_driver_sql(_EFFECTS, {"user_id": user_id}).scalars().all()
    mails = _cancel_mails(connection, effect_ids, mail_kind)
    texts = _erase_texts(connection, user_id, effect_ids, names) if has_names else 0
    reasons = _erase_reasons(connection, user_id, effect_ids, names)
    messages = _erase_messages(connection, user_id, learner.email if has_names else "")
    connection.exec_driver_sql(_ERASE_LEARNER, {"user_id": user_id})
    return Erased(has_names, mails, messages, reasons, texts)


def _any_of(names: Sequence[str]) -> str:
    """Return a regular expression, of Python and of PostgreSQL, that finds one of the names as a whole word.

    Empty names do not count.
    """
    wanted = [re.escape(name.strip()) for name in names if name.strip()]
    return rf"(?<!\w)(?:{'|'.join(wanted)})(?!\w)"


def _cancel_mails(connection: Connection, effect_ids: Sequence[UUID], mail_kind: str) -> Mapping[UUID, str]:
    mails = connection.exec_driver_sql(_MAILS, {"effect_ids": effect_ids, "mail": mail_kind}).scalars().all()
    return operators.cancel(connection, mails).before


def _erase_reasons(
    connection: Connection, user_id: str, effect_ids: Sequence[UUID], names: Sequence[str]
) -> int:
    values = {
        "user_id": user_id,
        "effect_ids": effect_ids,
        "names": _any_of(names) if names else None,
        "address": _any_of(names[:1]) if names else None,
    }
    return connection.exec_driver_sql(_ERASE_REASONS, values).rowcount


def _erase_texts(
    connection: Connection, user_id: str, effect_ids: Sequence[UUID], names: Sequence[str]
) -> int:
    """Of what may name anybody only what holds the address goes: somebody else may have the same name."""
    address, *_ = names
    own = {"user_id": user_id, "effect_ids": effect_ids, "erased": ERASED, "names": _any_of(names)}
    shared = {"erased": ERASED, "names": _any_of([address])}
    changed = sum(connection.exec_driver_sql(statement, own).rowcount for statement in _TEXTS)
    if changed:
        changed += connection.exec_driver_sql(_TOLD, own).rowcount
    return changed + sum(
        connection.exec_driver_sql(statement, shared).rowcount for statement in _SHARED_TEXTS
    )


def _erase_messages(connection: Connection, user_id: str, address: str) -> int:
    values = {"user_id": user_id, "part": _plain_part(address)}
    suspects = connection.exec_driver_sql(_SUSPECTS, values).scalars().all()
    found: list[int] = []
    for first in range(0, len(suspects), PAGE_ROWS):
        page = connection.exec_driver_sql(_BODIES, {"ids": suspects[first : first + PAGE_ROWS]})
        found += [row.id for row in page if _is_about(row, user_id, address)]
    erased = {"ids": found, "user_id": user_id, "erased": ERASED}
    return connection.exec_driver_sql(_ERASE_MESSAGES, erased).rowcount


def _plain_part(address: str) -> str:
    """Return the longest part of an address that is the same in every encoding, in lower case."""
    return max(_PLAIN.findall(address), key=len, default="").lower()


def _is_about(message: Any, user_id: str, address: str) -> bool:
    if message.user_id == user_id:
        return True
    body = bytes(message.body)
    return identify(body).user_id == user_id or bool(address and _holds(body, address.casefold()))


def _holds(body: bytes, address: str) -> bool:
    text = _readable(body)
    return address in text or address in unquote(text).casefold()


def _readable(body: bytes) -> str:
    """Return what a body says, in one case and without JSON's escapes, however broken it is.

    Without its zeros, text in UTF-16 or UTF-32 is ASCII as far as it can be.
    """
    text = body.replace(b"\0", b"").decode("utf-8", "surrogateescape")
    return _ESCAPED.sub(lambda found: chr(int(found[1], 16)) if found[1] else found[2], text).casefold()
