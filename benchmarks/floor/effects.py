"""The parts that carry out the effects by hand: a relay and workers, with the least that carries them out.

    python -m benchmarks.floor.effects relay|worker --database-url … --broker-url …

An effect is a row. The relay marks it as offered and sends its id, a worker claims it, calls nobody, and records
the result: the commits of ours, each in one round trip. Nothing asks whether a newer effect has overtaken it,
whether a circuit is open or a kind is paused, nobody takes over what another one has dropped, and nothing is
logged. A cascade declines the siblings in the transaction that records its result.
"""

import argparse
import select
from collections.abc import Callable

from psycopg2.extensions import connection as Connection  # noqa: N812 - it is a class

from benchmarks import driver_protocol
from benchmarks.floor import queues
from benchmarks.floor.database import connect
from benchmarks.floor.ways import NOTIFY
from db.wake import EFFECTS_CHANNEL

QUEUE = "floor.effects"

_OFFER = """
    PREPARE offer AS
    UPDATE effects SET offered_until = clock_timestamp() + interval '30 s'
    WHERE id = ANY (ARRAY(
        SELECT id FROM effects
        WHERE state = 'pending' AND kind = ANY ('{cascade_decline,send_status_email,set_credit_status}')
            AND due_at <= statement_timestamp() AND offered_until IS NULL
        ORDER BY due_at
        LIMIT 100
        FOR UPDATE SKIP LOCKED
    ))
    RETURNING id"""

_CLAIM = """
    PREPARE claim (uuid) AS
    WITH claimed AS (
        UPDATE effects
        SET state = 'running', lease_until = clock_timestamp() + interval '60 s', tries = tries + 1,
            retrying_since = clock_timestamp(), offered_until = NULL
        WHERE id = $1 AND state = 'pending'
        RETURNING id, kind
    ), begun AS (
        INSERT INTO tries (effect_id, number, sequence, started_at)
        SELECT id, 1, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint, clock_timestamp() FROM claimed
    )
    SELECT kind FROM claimed"""

_ENDED = """
    UPDATE tries SET result = 'done', finished_at = clock_timestamp() WHERE effect_id = $1 AND number = 1"""

_DONE = """
    UPDATE effects SET state = 'done', done_at = clock_timestamp(), lease_until = NULL WHERE id = $1"""

_RECORD = f"PREPARE record (uuid) AS WITH ended AS ({_ENDED}) {_DONE}"

_CASCADE = f"""
    PREPARE cascade (uuid) AS
    WITH ended AS ({_ENDED}), declined AS (
        INSERT INTO attempts (id, exam_id, user_id, created_at, status, taking_as_proctored, credit_owed, version,
            is_sample_attempt)
        SELECT gen_random_uuid(), sibling.exam_id, effect.user_id, clock_timestamp(), 'declined', false, true, 2,
            false
        FROM effects AS effect
        JOIN attempts AS attempt ON attempt.id = effect.attempt_id
        JOIN exams AS exam ON exam.exam_id = attempt.exam_id
        JOIN exams AS sibling ON sibling.course_id = exam.course_id AND sibling.exam_id <> exam.exam_id
        WHERE effect.id = $1
        RETURNING id, exam_id
    ), history AS (
        INSERT INTO transitions (id, attempt_id, version, from_status, to_status, at, source, command_id)
        SELECT gen_random_uuid(), declined.id, step.version, step.before, step.after, clock_timestamp(),
            effect.source, effect.command_id
        FROM declined, effects AS effect,
            (VALUES (1, NULL, 'created'), (2, 'created', 'declined')) AS step (version, before, after)
        WHERE effect.id = $1
    ), owed AS (
        INSERT INTO effects (id, kind, attempt_id, user_id, target, payload, source, command_id, state)
        SELECT gen_random_uuid(), 'set_credit_status', declined.id, effect.user_id,
            'credit:' || effect.user_id || '/' || declined.exam_id, effect.payload, effect.source,
            effect.command_id, 'pending'
        FROM declined, effects AS effect
        WHERE effect.id = $1
    )
    {_DONE}"""  # noqa: S608 - all parts are ours


def relay(connection: Connection, queue: queues.Handmade) -> None:
    """Offer what is due whenever somebody has committed effects, for ever."""
    with connection.cursor() as cursor:
        cursor.execute(_OFFER)
        cursor.execute("SET synchronous_commit = off")  # an offer that is lost is made again
        cursor.execute(f"LISTEN {EFFECTS_CHANNEL}")
        driver_protocol.write({"ready": True})
        while True:
            cursor.execute("EXECUTE offer")
            if offered := [f'"{effect_id}"' for (effect_id,) in cursor.fetchall()]:
                queue.send_all(offered)
            connection.poll()
            if not connection.notifies:
                select.select([connection], [], [])
                connection.poll()
            connection.notifies.clear()


def work(connection: Connection, queue: queues.Handmade) -> None:
    """Claim, call nobody, and record, one effect at a time, for ever."""
    with connection.cursor() as cursor:
        cursor.execute("SET plan_cache_mode = force_generic_plan")
        for statement in (_CLAIM, _RECORD, _CASCADE):
            cursor.execute(statement)
        driver_protocol.write({"ready": True})
        while True:
            effect_id = queue.take()
            cursor.execute("EXECUTE claim (%s)", [effect_id])
            for (kind,) in cursor.fetchall():
                if kind == "cascade_decline":
                    cursor.execute(f"BEGIN; EXECUTE cascade (%s); {NOTIFY}; COMMIT", [effect_id])
                else:
                    cursor.execute("EXECUTE record (%s)", [effect_id])
            queue.done()


PARTS: dict[str, Callable[[Connection, queues.Handmade], None]] = {"relay": relay, "worker": work}


def main() -> None:
    """Run a part until it is killed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.floor.effects")
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--database-url", required=True)
    parser.add_argument("--broker-url", required=True)
    options = parser.parse_args()
    connection = connect(options.database_url)
    PARTS[options.part](connection, queues.connect(options.broker_url, QUEUE))


if __name__ == "__main__":
    main()
