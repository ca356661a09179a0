"""The hot path of a batch: one statement that begins it, one that reads, one that writes, however many commands.

Rows travel as one JSON text for each table, so that a statement's text does not depend on how many there are. A
statement is put together once in each process: SQLAlchemy takes longer for that than PostgreSQL for a small batch.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import orjson
from sqlalchemy import (
    CTE,
    Connection,
    Text,
    Uuid,
    any_,
    bindparam,
    cast,
    column,
    func,
    literal,
    make_url,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.dialects.postgresql import insert as upsert

from db import prepared
from db.clock import CLOCK
from db.inbox import Arrival, Key
from db.models import (
    Attempt,
    Base,
    Course,
    Effect,
    EffectState,
    Exam,
    HandledCommand,
    Learner,
    Transition,
    Try,
    TryResult,
)
from db.shards import IN_HAND_LOCKS, Renewal
from db.wake import WAKE

Row = Mapping[str, Any]

# --- begin -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Begun:
    """A batch whose transaction is fenced."""

    inbox_ids: dict[Key, int]
    """Of the commands that were never seen."""
    learners: set[str]
    """Those that are known. Their locks are held."""


_BEGIN = """
WITH fence AS (
    UPDATE shards SET lease_until = clock_timestamp() + %(lease_s)s * interval '1 s'
    WHERE shard = %(shard)s AND epoch = %(epoch)s AND owner = %(owner)s
    RETURNING pg_try_advisory_xact_lock_shared(%(in_hand_lock)s, %(in_hand)s)
), entered AS (
    INSERT INTO inbox (source, command_id, type, fingerprint)
    SELECT source, command_id, type, fingerprint
    FROM json_to_recordset(%(arrivals)s) AS arrival (source text, command_id text, type text, fingerprint bytea)
    WHERE EXISTS (SELECT FROM fence)
    ON CONFLICT DO NOTHING
    RETURNING id, source, command_id
), locked AS (
    SELECT user_id FROM learners
    WHERE user_id = ANY (%(user_ids)s::text[]) AND EXISTS (SELECT FROM fence)
        AND (SELECT count(*) FROM entered) >= 0
    ORDER BY user_id
    FOR NO KEY UPDATE
)
SELECT json_build_array(
    (SELECT count(*) FROM fence),
    (SELECT json_agg(json_build_array(source, command_id, id)) FROM entered),
    (SELECT json_agg(user_id) FROM locked)
)::text
"""
"""The fence first: its row's lock keeps a later owner out until the batch has committed, and without it nothing is
inserted. Then the inbox, then the learners: each part asks for the one before it, so that PostgreSQL keeps to this
order of locks."""


def begin(
    connection: Connection, renewal: Renewal, arrivals: Sequence[Arrival], user_ids: Collection[str]
) -> Begun | None:
    """Renew the lease, insert the commands that were never seen, and lock learners. None: the tenure is over.

    The commands come sorted, because two shards insert the same broadcast commands: in different orders they
    would deadlock. A key that another transaction is inserting is waited for.

    Parameters:
        renewal: of the shard whose commands they are.
        arrivals: the commands, each key once.
        user_ids: the learners, as for `lock_learners`.
    """
    fence = renewal.fence
    mine, entered, learners = _answer(
        connection,
        _BEGIN,
        {
            "lease_s": renewal.lease_s,
            "shard": fence.shard,
            "epoch": fence.epoch,
            "owner": fence.owner,
            "in_hand_lock": IN_HAND_LOCKS + fence.shard,
            "in_hand": renewal.in_hand,
            "arrivals": _json(
                [
                    {
                        "source": arrival.key[0],
                        "command_id": arrival.key[1],
                        "type": arrival.type,
                        "fingerprint": rf"\x{arrival.fingerprint.hex()}",
                    }
                    for arrival in sorted(arrivals, key=lambda arrival: arrival.key)
                ]
            ),
            "user_ids": list(user_ids),
        },
    )
    if not mine:
        return None
    inbox_ids = {(source, command_id): inbox_id for source, command_id, inbox_id in entered or ()}
    return Begun(inbox_ids, set(learners or ()))


def lock_learners(connection: Connection, user_ids: Collection[str]) -> set[str]:
    """Lock the learners, in the order of their ids, and return those that are known.

    This one lock covers all of a learner's attempts, also those that do not exist yet, and orders the
    effects on each target. Foreign keys to the row do not wait for it. Who reads what belongs to a learner does so
    in a later statement: this one may have waited, and sees what was there before.
    """
    known = (
        select(Learner.user_id)
        .where(Learner.user_id.in_(user_ids))
        .order_by(Learner.user_id)
        .with_for_update(key_share=True)
    )
    return set(connection.scalars(known))


# --- read --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Found:
    """What is recorded, each row a list of values in the order of `_READ`."""

    learners: set[str]
    """Those that are known, locked or not."""
    exams: Sequence[Sequence[Any]]
    providers: Mapping[str, str | None]
    """Of the courses that are known."""
    attempts: Sequence[Sequence[Any]]
    """Live ones."""
    cascades: Sequence[Sequence[Any]]
    """Owed ones, oldest first, locked."""


# An array and not IN or a join where a table is looked up: PostgreSQL might read the whole table.
_READ = """
WITH named AS MATERIALIZED (
    SELECT %(course_ids)s::text[]
        || ARRAY(SELECT course_id FROM exams WHERE exam_id = ANY (%(exam_ids)s::text[])) AS course_ids
)
SELECT json_build_array(
    (SELECT json_agg(user_id) FROM learners WHERE user_id = ANY (%(user_ids)s::text[])),
    (
        SELECT json_agg(json_build_array(
            exam_id, course_id, content_id, is_proctored, is_practice_exam, is_active
        ))
        FROM exams WHERE course_id = ANY ((SELECT course_ids FROM named)::text[])
    ),
    (
        SELECT json_object_agg(course_id, provider)
        FROM courses WHERE course_id = ANY ((SELECT course_ids FROM named)::text[])
    ),
    (
        SELECT json_agg(json_build_array(
            id, exam_id, user_id, status, taking_as_proctored, is_sample_attempt, external_id, started_at,
            completed_at, credit_owed, version, created_at
        ))
        FROM attempts WHERE user_id = ANY (%(user_ids)s::text[]) AND removed_at IS NULL
    ),
    (
        SELECT json_agg(json_build_array(
            id, payload, source, command_id, CASE WHEN state = 'running' THEN tries END
        ))
        FROM (
            SELECT id, payload, source, command_id, state, tries
            FROM effects
            WHERE kind = 'cascade_decline' AND state IN ('pending', 'running')
                AND user_id = ANY (%(user_ids)s::text[])
            ORDER BY sequence
            FOR UPDATE
        ) AS owed
    )
)::text
"""


def read(
    connection: Connection,
    user_ids: Collection[str],
    exam_ids: Collection[str],
    course_ids: Collection[str],
) -> Found:
    """What the commands of some learners, whose locks are held, may look at.

    Parameters:
        user_ids: the learners.
        exam_ids: the exams; all others of their courses are read with them.
        course_ids: more courses.
    """
    learners, exams, providers, attempts, cascades = _answer(
        connection,
        _READ,
        {"user_ids": list(user_ids), "exam_ids": list(exam_ids), "course_ids": list(course_ids)},
    )
    return Found(set(learners or ()), exams or (), providers or {}, attempts or (), cascades or ())


# --- write -------------------------------------------------------------------------------------------------

WRITTEN: Sequence[type[Base]] = (Course, Exam, Learner, Attempt, Transition, Effect, HandledCommand)
"""The tables that a batch writes."""

_UPSERTED = {Course, Exam, Learner, Attempt}


def write(
    connection: Connection,
    rows: Mapping[type[Base], Collection[Row]],
    finished: Collection[Any] = (),
    result: TryResult = TryResult.FOLDED,
) -> None:
    """Write a batch, and wake the relays if it owes effects.

    Foreign keys are checked when all of it is there. In each table rows are written in the order given: the
    sequence numbers of effects grow in that order, and a removed attempt makes room for the next.

    Parameters:
        rows: by table, each primary key once, all of a table with the same columns.
        finished: ids of cascades that are carried out, whether or not a worker has them.
        result: of the tries of these workers.
    """
    tables = tuple(table for table in WRITTEN if rows.get(table))
    if not tables and not finished:
        return
    statement, constants = _write_statement(
        tuple((table, tuple(next(iter(rows[table])))) for table in tables), bool(finished)
    )
    values = constants | {table.__tablename__: _json(rows[table]) for table in tables}
    if finished:
        values |= {"finished": [str(one) for one in finished], "result": result.value}
    prepared.execute(connection, statement, values)


_DIALECT = make_url("postgresql+psycopg2://").get_dialect()()


@cache
def _write_statement(
    tables: Sequence[tuple[type[Base], Sequence[str]]], finishing: bool
) -> tuple[str, dict[str, Any]]:
    """The statement's text, and the values in it that are always the same.

    Parameters:
        tables: with the names of the columns of their rows.
        finishing: whether cascades are to be finished, too.
    """
    parts = [_insert(table, names) for table, names in tables]
    if finishing:
        parts += [_finish_effects(), _finish_tries()]
    wake = WAKE if any(table is Effect for table, _ in tables) else literal(1)
    compiled = select(wake).add_cte(*parts).compile(dialect=_DIALECT)
    return str(compiled), dict(compiled.params)


def _insert(table: type[Base], names: Sequence[str]) -> CTE:
    """Insert the rows of a JSON array, the parameter that has the table's name."""
    columns = [table.__table__.columns[name] for name in names]
    given = (
        func.json_to_recordset(bindparam(table.__tablename__))
        .table_valued(*(column(one.name, one.type) for one in columns))
        .render_derived(name="given", with_types=True)
    )
    statement = upsert(table).from_select(names, select(given))
    if table in _UPSERTED:
        key = [one.name for one in table.__table__.primary_key]
        changed = {name: statement.excluded[name] for name in names if name not in key}
        statement = statement.on_conflict_do_update(index_elements=key, set_=changed)
    return statement.cte(f"write_{table.__tablename__}")


def _finish_effects() -> CTE:
    done = {"state": EffectState.DONE, "done_at": CLOCK, "lease_until": None, "offered_until": None}
    return (
        update(Effect).where(Effect.id == _finished()).values(**done, last_error=None).cte("finish_effects")
    )


def _finish_tries() -> CTE:
    return (
        update(Try)
        .where(Try.effect_id == _finished(), Try.result.is_(None))
        .values(result=bindparam("result"), finished_at=CLOCK)
        .cte("finish_tries")
    )


def _finished() -> Any:
    # psycopg2 makes an array of text, which a prepared statement takes for nothing else.
    return any_(cast(bindparam("finished", type_=ARRAY(Text)), ARRAY(Uuid)))


def _json(rows: Collection[Row]) -> str:
    # The standard library takes ten times as long for ids and times: a fifth of what a command costs.
    return orjson.dumps(rows).decode()


def _answer(connection: Connection, statement: str, values: dict[str, Any]) -> Any:
    return orjson.loads(prepared.execute(connection, statement, values).scalar_one())
