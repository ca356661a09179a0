"""What must be true after a storm: the same record as after a calm day, and the other side agrees with it."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from itertools import groupby
from typing import Any, NamedTuple

from sqlalchemy import Connection, text

from db.ids import new_receipt
from events.commands import AttemptUpdateStatus, Command
from tests import sample_commands as c
from tests.acceptance import acts
from tests.acceptance.harness import Stack
from tests.engines import disposed
from worker.commands.decoding import Received, decode
from worker.commands.handler import Handler
from worker.commands.sources import Message
from worker.policies import Policies
from worker.rules.policy import CREDIT_OF

CALM_BATCH = 100

_OUTCOMES = """
SELECT source, command_id, outcome, code FROM inbox LEFT JOIN outcomes ON inbox.id = inbox_id
"""
# The live attempt comes last. Times are those of the acts, and ids those of the processes' clocks: neither says in
# which order removed attempts came.
_HISTORY = """
SELECT exam_id, user_id, removed_at IS NOT NULL AS removed, a.id, a.version AS last, t.version,
       from_status, to_status, source, command_id, effect_id IS NOT NULL AS cascaded
FROM attempts a JOIN transitions t ON attempt_id = a.id
ORDER BY exam_id, user_id, removed DESC, a.id, t.version
"""
_EFFECTS = (
    "SELECT kind, user_id, payload->>'exam_id' AS exam, payload->>'status' AS status, command_id FROM effects"
    " WHERE event_id IS NULL"  # deliveries are owed to those who subscribe, and not by a command
)
_OWED_CASCADES = """
SELECT DISTINCT user_id, payload->>'exam_id' AS exam_id FROM effects
WHERE kind = 'cascade_decline' AND state = 'pending'
"""


class Record(NamedTuple):
    """What can be compared between two runs: all but times and ids of our own."""

    outcomes: dict[tuple[str, str], tuple[str, str | None]]
    histories: dict[tuple[str, str], Counter[tuple[Any, ...]]]
    """By exam and learner, the history of each attempt."""
    effects: Counter[tuple[Any, ...]]


def calm_record(database_url: str, bodies: Sequence[bytes]) -> Record:
    """The record after the same commands on a calm day: no processes, nothing fails, each comes once."""
    received = [
        item for item in (decode(Message(body, None)) for body in bodies) if isinstance(item, Received)
    ]
    assert len(received) == len(bodies)
    handler = Handler(Policies(), instructor=True)
    with disposed(database_url) as engine:
        for start in range(0, len(received), CALM_BATCH):
            with engine.begin() as connection:
                c.handle(handler, connection, received[start : start + CALM_BATCH])
        with engine.begin() as connection:
            _settle_cascades(handler, connection)
        with engine.connect() as connection:
            return read_record(connection)


def _settle_cascades(handler: Handler, connection: Connection) -> None:
    # A command that is refused changes nothing, but what is owed comes first.
    owed = connection.execute(text(_OWED_CASCADES)).all()
    nudges = [AttemptUpdateStatus(exam_id=row.exam_id, user_id=row.user_id, to_status="none") for row in owed]
    commands = [(Command("/oracle", str(n), data), new_receipt()) for n, data in enumerate(nudges)]
    c.apply(handler, connection, commands)


def read_record(connection: Connection) -> Record:
    """What a database holds."""
    histories: dict[tuple[str, str], Counter[tuple[Any, ...]]] = defaultdict(Counter)
    for (exam_id, user_id, _), rows in groupby(
        connection.execute(text(_HISTORY)), key=lambda row: (row.exam_id, row.user_id, row.id)
    ):
        steps = (
            (row.removed, row.version, row.from_status, row.to_status, row.command_id, row.cascaded)
            for row in rows
        )
        histories[exam_id, user_id][tuple(steps)] += 1
    return Record(
        {
            (row.source, row.command_id): (row.outcome, row.code)
            for row in connection.execute(text(_OUTCOMES))
        },
        dict(histories),
        Counter(tuple(row) for row in connection.execute(text(_EFFECTS))),
    )


def assert_nothing_lost_or_doubled(stack: Stack, calm_database_url: str) -> None:
    """The whole creed: one outcome for each command, a whole history, and an LMS that agrees with it."""
    assert_the_other_side_agrees(stack)
    assert_record_of_a_calm_day(stack, calm_database_url)


def assert_record_of_a_calm_day(stack: Stack, calm_database_url: str) -> None:
    """The same of the record alone, for a stack whose effects have not run: it settles owed cascades itself."""
    with disposed(stack.database_url) as engine, engine.begin() as connection:
        _settle_cascades(Handler(Policies(), instructor=True), connection)
    assert_one_outcome_each(stack)
    assert_whole_histories(stack)
    assert_acts_in_place_and_time(stack)
    calm = calm_record(calm_database_url, list(stack.client.bodies.values()))
    with disposed(stack.database_url) as engine, engine.connect() as connection:
        stormy = read_record(connection)
    assert stormy.outcomes == calm.outcomes
    assert stormy.histories == calm.histories
    assert stormy.effects == calm.effects


def assert_one_outcome_each(stack: Stack) -> None:
    """Every published command has exactly one outcome, and nothing else has one."""
    rows = stack.rows(_OUTCOMES)
    assert Counter((row.source, row.command_id) for row in rows) == Counter(stack.client.bodies.keys())
    assert [row for row in rows if row.outcome is None] == []


def assert_whole_histories(stack: Stack) -> None:
    """Versions without a gap, each step from where the last one led, and one live attempt at most."""
    steps = defaultdict(list)
    live = defaultdict(set)
    for row in stack.rows(_HISTORY):
        steps[row.id].append(row)
        if not row.removed:
            live[row.exam_id, row.user_id].add(row.id)
    for history in steps.values():
        assert [step.version for step in history] == list(range(1, history[0].last + 1))
        assert [step.from_status for step in history] == [None, *(step.to_status for step in history[:-1])]
    assert [key for key, attempts in live.items() if len(attempts) > 1] == []


def assert_acts_in_place_and_time(stack: Stack) -> None:
    """Each command has changed only the attempt that it named, and each change happened when it must have."""
    steps = stack.rows(acts.STEPS)
    assert list(acts.misdirected(steps, stack.rows(acts.REMOVALS), stack.client.bodies)) == []
    assert list(acts.mistimed(steps, stack.client.bodies)) == []


def assert_the_other_side_agrees(stack: Stack) -> None:
    """Credit is what the last transition says, mails and resets have arrived, nothing is owed or failed."""
    states = dict(map(tuple, stack.rows("SELECT state, count(*) FROM effects GROUP BY state")))
    assert states.keys() <= {"done", "superseded"}
    assert stack.lms.refused == 0
    expected = expected_credit(stack)
    assert {key: stack.lms.credit(*key) for key in expected} == expected
    calls = {call.effect_id for call in stack.lms.calls}
    assert _done(stack, "delete_student_attempt") <= calls
    assert _done(stack, "set_credit_status") | _done(stack, "remove_credit_status") <= calls
    mails = {mail.message_id.strip("<>").partition("@")[0] for mail in stack.mail.mails}
    assert mails == _done(stack, "send_status_email")
    assert stack.number("SELECT count(*) FROM effects WHERE state = 'superseded' AND target IS NULL") == 0


def _done(stack: Stack, kind: str) -> set[str]:
    rows = stack.rows("SELECT id FROM effects WHERE kind = :kind AND state = 'done'", kind=kind)
    return {str(row.id) for row in rows}


def expected_credit(stack: Stack) -> dict[tuple[str, str, str], str | None]:
    """(user, course, content) → what the live attempt's last transition that owes credit says; else nothing."""
    exams = {row.exam_id: row for row in stack.rows("SELECT * FROM exams")}
    worth = {str(status): credit for status, credit in CREDIT_OF.items()}
    expected: dict[tuple[str, str, str], str | None] = {}
    for row in stack.rows(_HISTORY):
        target = (row.user_id, exams[row.exam_id].course_id, exams[row.exam_id].content_id)
        if row.removed:
            expected[target] = None
        elif row.to_status in worth:
            expected[target] = worth[row.to_status]
        else:
            expected.setdefault(target, None)
    return expected
