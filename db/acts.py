"""The audit: what people did, a row for each step, chained by hashes.

A row is written in the transaction of what it tells of. The lock on the chain is the last lock of that transaction,
because everybody who acts waits for it.
"""

import hashlib
import hmac
import json
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import Connection

from db.recordset import recordset
from db.streaming import stream

START = bytes(32)
"""What the first row has as the hash of the one before."""
SALT_BYTES = 16


@dataclass(frozen=True, slots=True)
class Target:
    """An effect that a step has changed, with its state before and after."""

    effect_id: UUID
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class NewAct:
    """A step of something that a person did.

    Parameters:
        actor: who.
        is_claimed: whether nobody has proved that the actor is who they say.
        via: the way in: `console`, `api` or `command line`.
        origin: the address or the host from where it was done.
        action: such as `retry`.
        filter: what it was to apply to, as it was asked for. JSON values without floats, here and in `details`.
        number: to how many it applied. Of the closing row of an act in bulk: to how many all steps did.
        details: what there was before and after.
        reason: why, in the actor's words.
        user_id: the learner, of an act that is about one.
        targets: the effects that were changed.
        act_id: what the steps of an act in bulk share.
        closing: whether the act ends with this step.
    """

    actor: str
    is_claimed: bool
    via: str
    origin: str | None
    action: str
    filter: Mapping[str, Any]
    number: int
    details: Mapping[str, Any] = field(default_factory=dict)
    reason: str | None = None
    user_id: str | None = None
    targets: Sequence[Target] = ()
    act_id: UUID = field(default_factory=uuid4)
    closing: bool = True


# --- the chain -------------------------------------------------------------------------------------------

_COVERED = (
    "sequence",
    "act_id",
    "step",
    "closing",
    "at",
    "actor",
    "is_claimed",
    "via",
    "origin",
    "action",
    "user_id",
    "filter",
    "number",
    "details",
    "reason_digest",
    "previous",
)
"""The columns that the hash covers."""


def hash_of(row: Mapping[str, Any]) -> bytes:
    """Return the SHA-256 of a row's canonical JSON: the covered columns, sorted by name, without white space.

    Times are in UTC, bytes in hexadecimal.
    """
    covered = {name: row[name] for name in _COVERED}
    return hashlib.sha256(_canonical(covered)).digest()


def _canonical(value: Any) -> bytes:
    return json.dumps(value, default=_plain, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def _plain(value: Any) -> Any:
    match value:
        case datetime():
            return value.astimezone(UTC).isoformat(timespec="microseconds")
        case UUID():
            return str(value)
        case bytes() | memoryview():
            return bytes(value).hex()
    raise TypeError(f"{type(value).__name__} does not belong into the audit")


def _digest_of_targets(targets: Iterable[Target]) -> str:
    rows = sorted([str(one.effect_id), one.before, one.after] for one in targets)
    return hashlib.sha256(_canonical(rows)).hexdigest()


# --- writing ---------------------------------------------------------------------------------------------

# Any number will do, if nobody else uses it in this database.
_LOCK = "SELECT pg_advisory_xact_lock(5288270631014)"

_LAST = """
SELECT
    clock_timestamp() AS at,
    coalesce((SELECT max(sequence) FROM acts), 0) AS sequence,
    (SELECT hash FROM acts ORDER BY sequence DESC LIMIT 1) AS hash,
    coalesce((SELECT max(step) FROM acts WHERE act_id = %(act_id)s), 0) AS step
"""

_INSERT = """
INSERT INTO acts (
    sequence, act_id, step, closing, at, actor, is_claimed, via, origin, action, user_id, filter, number, details,
    reason, salt, reason_digest, previous, hash
)
VALUES (
    %(sequence)s, %(act_id)s, %(step)s, %(closing)s, %(at)s, %(actor)s, %(is_claimed)s, %(via)s, %(origin)s,
    %(action)s, %(user_id)s, %(filter)s::jsonb, %(number)s, %(details)s::jsonb, %(reason)s, %(salt)s,
    %(reason_digest)s, %(previous)s, %(hash)s
)
"""

_INSERT_TARGETS = """
INSERT INTO act_targets (act_sequence, effect_id, before, after)
SELECT %(sequence)s, effect_id, before, after
FROM json_to_recordset(%(targets)s) AS target (effect_id uuid, before text, after text)
"""


def append(connection: Connection, act: NewAct) -> UUID:
    """Write the next step of an act, in the transaction of what it tells of. Returns the id of the act.

    It waits for whoever appends at the same time, so nothing may be locked after it.

    Raises:
        TypeError, ValueError: the filter or the details hold what is no JSON value, or a float.
    """
    details = dict(act.details)
    if act.targets:
        details["targets_sha256"] = _digest_of_targets(act.targets)
    for part in (act.filter, details):
        _refuse_floats(part)
    connection.exec_driver_sql(_LOCK)
    # A statement of its own: it sees what was committed while this waited for the lock.
    last = connection.exec_driver_sql(_LAST, {"act_id": act.act_id}).one()
    salt = None if act.reason is None else secrets.token_bytes(SALT_BYTES)
    row = {
        **{name: value for name, value in asdict(act).items() if name in _COVERED},
        "sequence": last.sequence + 1,
        "step": last.step + 1,
        "at": last.at,
        "filter": dict(act.filter),
        "details": details,
        "reason_digest": _digest(act.reason, salt),
        "previous": START if last.hash is None else bytes(last.hash),
    }
    stored = {
        **row,
        "filter": json.dumps(row["filter"]),
        "details": json.dumps(row["details"]),
        "reason": act.reason,
        "salt": salt,
        "hash": hash_of(row),
    }
    connection.exec_driver_sql(_INSERT, stored)
    if act.targets:
        rows = [asdict(one) for one in act.targets]
        connection.exec_driver_sql(_INSERT_TARGETS, {"sequence": row["sequence"], "targets": recordset(rows)})
    return act.act_id


def _digest(reason: str | None, salt: bytes | None) -> bytes | None:
    if reason is None or salt is None:
        return None
    return hmac.digest(salt, reason.encode(), "sha256")


def _refuse_floats(value: Any) -> None:
    """PostgreSQL stores some floats in another spelling, so their hash would not be found again."""
    if isinstance(value, float):
        raise TypeError("a float does not belong into the audit")
    parts = value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ()
    for part in parts:
        _refuse_floats(part)


# --- reading ---------------------------------------------------------------------------------------------

# An array rather than a join makes PostgreSQL look the rows up. For a join it may go through all of them.
_ACTS = """
SELECT
    sequence, act_id, step, closing, at, actor, is_claimed, via, origin, action, user_id, filter, number, details,
    reason, reason_digest IS NOT NULL AND reason IS NULL AS reason_erased
FROM acts
WHERE (%(act_id)s::uuid IS NULL OR act_id = %(act_id)s::uuid)
    AND (%(user_id)s::text IS NULL OR user_id = %(user_id)s)
    AND (%(effect_id)s::uuid IS NULL OR sequence = ANY (ARRAY(
        SELECT act_sequence FROM act_targets WHERE effect_id = %(effect_id)s::uuid
    )))
    AND (%(before)s::bigint IS NULL OR sequence < %(before)s)
ORDER BY sequence DESC
LIMIT %(limit)s
"""


def acts(
    connection: Connection,
    *,
    act_id: UUID | None = None,
    user_id: str | None = None,
    effect_id: UUID | None = None,
    before: int | None = None,
    limit: int | None = None,
) -> Iterator[dict[str, Any]]:
    """Return rows of the audit, newest first, as they come from the database. None stands for any.

    Parameters:
        act_id: steps of this act.
        user_id: acts about this learner.
        effect_id: acts that have changed this effect.
        before: rows before this sequence number.
        limit: how many at most.
    """
    values = {"act_id": act_id, "user_id": user_id, "effect_id": effect_id, "before": before, "limit": limit}
    return (row._asdict() for row in stream(connection, _ACTS, values))


_STEPS = """
SELECT step, action
FROM acts
WHERE act_id = %(act_id)s AND EXISTS (SELECT FROM act_targets AS target WHERE target.act_sequence = acts.sequence)
ORDER BY step
"""

_EFFECTS = """
SELECT
    target.effect_id AS id, target.before, target.after, effects.kind, effects.state, effects.payload,
    effects.tries, effects.last_error, effects.cause
FROM act_targets AS target
LEFT JOIN effects ON effects.id = target.effect_id
WHERE target.act_sequence = (SELECT sequence FROM acts WHERE act_id = %(act_id)s AND step = %(step)s)
ORDER BY effects.created_at, effects.sequence, target.effect_id
"""

_STATES = """
SELECT state, count(*) AS number
FROM effects
WHERE id = ANY (ARRAY(
    SELECT effect_id
    FROM act_targets
    WHERE act_sequence = ANY (ARRAY(SELECT sequence FROM acts WHERE act_id = %(act_id)s))
    LIMIT %(most)s
))
GROUP BY state
ORDER BY state
"""


def steps_of(connection: Connection, act_id: UUID) -> dict[int, str]:
    """Return the steps of an act that have changed an effect, in order, each with its action."""
    return {row.step: row.action for row in connection.exec_driver_sql(_STEPS, {"act_id": act_id})}


def effects_of(connection: Connection, act_id: UUID, step: int) -> list[dict[str, Any]]:
    """Return the effects that a step of an act has changed, with what they are now: null for a pruned one."""
    values = {"act_id": act_id, "step": step}
    return [row._asdict() for row in connection.exec_driver_sql(_EFFECTS, values)]


def states_of(connection: Connection, act_id: UUID, most: int) -> dict[str, int]:
    """Return how many of the effects that an act has changed are in which state now.

    Parameters:
        most: so many effects are looked at.
    """
    values = {"act_id": act_id, "most": most}
    return {row.state: row.number for row in connection.exec_driver_sql(_STATES, values)}


# --- verifying -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Kept:
    """A row of the chain by its number and its hash, as somebody has written them down elsewhere."""

    sequence: int
    hash: bytes


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether the chain holds.

    Parameters:
        rows: how many rows fit, from the first one on.
        newest: the last of them. None if there is none.
        sequence: the first row that does not fit. None if all do.
        problem: what is wrong with it.
    """

    rows: int
    newest: Kept | None
    sequence: int | None = None
    problem: str | None = None

    @property
    def holds(self) -> bool:
        """Whether every row fits."""
        return self.problem is None


_CHAIN = """
SELECT acts.*, (
    SELECT json_agg(json_build_array(effect_id, before, after)) FROM act_targets WHERE act_sequence = sequence
) AS targets
FROM acts
ORDER BY sequence
"""


def verify(connection: Connection, kept: Kept | None = None) -> Verdict:
    """Go through the audit, and stop at the first row that does not fit: changed, missing, or out of its place.

    A chain does not show that its last rows were taken away, or that somebody who may write the table made all of
    it anew. A row that was kept elsewhere shows both, up to that row.

    Parameters:
        kept: a row that must be there as it was.
    """
    newest: Kept | None = None
    for row in stream(connection, _CHAIN, {}):
        problem = _problem(row._asdict(), newest) or _broken_promise(row._asdict(), kept)
        if problem is not None:
            return Verdict(0 if newest is None else newest.sequence, newest, row.sequence, problem)
        newest = Kept(row.sequence, bytes(row.hash))
    rows = 0 if newest is None else newest.sequence
    if kept is not None and kept.sequence > rows:
        return Verdict(rows, newest, rows + 1, "is missing: the end was cut off")
    return Verdict(rows, newest)


def _problem(row: Mapping[str, Any], before: Kept | None) -> str | None:
    expected = 1 if before is None else before.sequence + 1
    if row["sequence"] != expected:
        return f"comes after {expected - 1}: something between them is missing"
    if bytes(row["previous"]) != (START if before is None else before.hash):
        return "does not follow from the row before: one of the two was replaced"
    if bytes(row["hash"]) != hash_of(row):
        return "was changed"
    if row["reason"] is not None and _digest(row["reason"], bytes(row["salt"])) != bytes(
        row["reason_digest"] or b""
    ):
        return "has another reason than it had"
    if _found_targets(row["targets"]) != row["details"].get("targets_sha256"):
        return "has other effects than it had"
    return None


def _found_targets(rows: Sequence[Sequence[str]] | None) -> str | None:
    return None if rows is None else _digest_of_targets(Target(UUID(one[0]), one[1], one[2]) for one in rows)


def _broken_promise(row: Mapping[str, Any], kept: Kept | None) -> str | None:
    if kept is None or row["sequence"] != kept.sequence or bytes(row["hash"]) == kept.hash:
        return None
    return "is not the row that was kept: the chain was made anew"
