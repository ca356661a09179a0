"""The checks of the stateful test: after every step, and after everything has settled.

The committed history is the truth. This module derives from it, without the code of the rules, what must follow. It
compares that with the owed effects, the tries, and the state of the LMS.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import Row

from db import event_log
from events.commands import AttemptCreate, AttemptUpdateStatus
from events.event_types import EVENT_TYPES
from tests.acceptance import acts
from tests.counted import DIFFERENCES
from tests.documented import CREDIT
from tests.kinds import KINDS_OF_0_1_0
from tests.stateful.broker import SHARDS
from tests.stateful.descriptions import check_descriptions
from tests.stateful.lms import Answer, Target
from tests.stateful.strategies import EXAMS
from tests.stateful.world import World
from worker.kinds import EffectKind

MAIL = EffectKind.SEND_STATUS_EMAIL
MAX_ROUNDS = 60
"""The largest number of rounds of offering and running until nothing is owed. A handful is enough."""

CREATED, CHANGED, REMOVED, NOT_APPLIED, QUARANTINED, FAILED, RECOVERED = EVENT_TYPES
MANY_EVENTS = 100_000
MAILED = ("submitted", "verified", "rejected")
CASCADING = ("declined", "rejected")

_ATTEMPTS = "SELECT * FROM attempts ORDER BY removed_at IS NULL, id"
"""Removed ones first. Here one process makes all ids, so they follow the order in which attempts were made."""
_TRANSITIONS = "SELECT * FROM transitions ORDER BY attempt_id, version"
_TRIES = "SELECT * FROM tries ORDER BY effect_id, number"
_REFUSALS = """
SELECT source, command_id, outcome, code FROM inbox JOIN outcomes ON inbox.id = inbox_id
WHERE code IN ('attempt_not_found', 'stale_attempt', 'precondition_failed', 'attempt_code_taken')
"""
_CODES = "SELECT coalesce(attempt_code, id::text) AS code, version, removed_at FROM attempts"
_INBOX = "SELECT source, command_id, outcome FROM inbox LEFT JOIN outcomes ON inbox.id = inbox_id"


# --- after every step ------------------------------------------------------------------------------------


def check_step(world: World) -> None:
    """Check that effects, tries and histories are consistent, and that only allowed changes have happened."""
    effects = world.read_effects()
    for effect_id, before in world.effects.items():
        _check_change(world, before, effects[effect_id], effects)
    running = [row for row in effects.values() if row.state == "running"]
    for what in ("target", "order_key"):
        together = Counter(getattr(row, what) for row in running if getattr(row, what))
        assert max(together.values(), default=0) <= 1, f"two run with one {what}"
    _check_tries(world, effects)
    _check_histories(world)
    world.effects = effects
    world.changed_by_hand.clear()


def _check_change(world: World, before: Row[Any], now: Row[Any], effects: Mapping[UUID, Row[Any]]) -> None:
    for column in ("sequence", "target", "order_key", "payload", "kind"):
        assert getattr(now, column) == getattr(before, column), f"its {column} has changed"
    assert now.tries >= before.tries
    if before.state == "pending" and now.tries > before.tries:
        _check_turn(world, now, effects)
    if before.state in ("done", "superseded"):
        assert now == before, "what has ended has changed"
    if before.state in ("failed", "cancelled") and now.id not in world.changed_by_hand:
        assert now.state == before.state, "nobody has asked for this"
    if now.state == "superseded" != before.state:
        world.reached["superseded"] += 1
        assert world.newer(now, effects), "superseded by nothing"


def _check_turn(world: World, begun: Row[Any], effects: Mapping[UUID, Row[Any]]) -> None:
    """Check that an effect was begun only when the older ones of its order key had ended."""
    if begun.order_key is None:
        return
    was_ahead = [
        row.id
        for row in world.effects.values()
        if row.order_key == begun.order_key
        and row.sequence < begun.sequence
        and row.state in ("pending", "running")
    ]
    for effect_id in was_ahead:
        assert effects[effect_id].state not in ("pending", "running"), "it was not its turn"


def _check_tries(world: World, effects: Mapping[UUID, Row[Any]]) -> None:
    tries = defaultdict(list)
    for row in world.rows(_TRIES):
        tries[row.effect_id].append(row)
    for effect_id, effect in effects.items():
        mine = tries[effect_id]
        assert [row.number for row in mine] == list(range(1, effect.tries + 1)), "tries are missing"
        assert all(row.result is not None for row in mine[:-1]), "two tries at once"
        results = [row.result for row in mine]
        assert results.count("done") <= 1
        last = results[-1] if results else None
        assert (effect.state == "running") == (bool(mine) and last is None), "an open try without an effect"
        assert "done" not in results or effect.state == "done"
        if effect.state == "done" and effect.kind != EffectKind.CASCADE_DECLINE:
            assert last == "done", "done, but no try says so"


def _check_histories(world: World) -> None:
    steps = defaultdict(list)
    for row in world.rows(_TRANSITIONS):
        steps[row.attempt_id].append(row)
    live: Counter[tuple[str, str]] = Counter()
    for attempt in world.rows(_ATTEMPTS):
        history = steps.pop(attempt.id)
        assert [step.version for step in history] == list(range(1, attempt.version + 1)), "a gap"
        assert [step.from_status for step in history] == [None, *(step.to_status for step in history[:-1])]
        assert history[-1].to_status == attempt.status
        live[attempt.exam_id, attempt.user_id] += attempt.removed_at is None
    assert not steps
    assert max(live.values(), default=0) <= 1, "two live attempts"


# --- until nothing is owed -------------------------------------------------------------------------------


def settle(world: World) -> None:
    """Let everything finish: every service answers, nothing fails, and an operator retries failed effects."""
    given_up = world.workers[::2]  # these workers answer only after others have done their work
    for worker in world.workers[1::2]:
        world.answer(worker, Answer.OK)
        check_step(world)
    for shard in range(SHARDS):
        while world.broker.queues[shard]:
            world.deliver(shard, 5)
            check_step(world)
    for _ in range(MAX_ROUNDS):
        owed = [row for row in world.effects.values() if _is_owed(world, row)]
        if not owed:
            break
        _run_all(world, owed)
        check_step(world)
    else:
        raise AssertionError(f"still owed after {MAX_ROUNDS} rounds: {owed}")
    for worker in given_up:
        world.answer(worker, Answer.OK)
        check_step(world)


def _run_all(world: World, owed: Sequence[Row[Any]]) -> None:
    for row in owed:
        if row.state == "failed":
            world.retry(row.id)
    for what in ("due dates", "offers", "leases", "circuits"):
        world.end(what)
    world.offer()
    while world.broker.offers:
        worker = world.start(world.broker.take_offer(0, again=False))
        if worker is not None:
            world.answer(worker, Answer.OK)
        if not world.broker.offers:
            world.offer()  # what the end of another one has freed


def _is_owed(world: World, row: Row[Any]) -> bool:
    overtaken = bool(world.newer(row, world.effects))
    return row.state in ("pending", "running") or (row.state == "failed" and not overtaken)


# --- when nothing is owed --------------------------------------------------------------------------------


def check_end(world: World) -> None:
    """Check that everything published has happened exactly once, and that the LMS has been told."""
    _check_outcomes(world)
    _check_acts(world)
    check_descriptions(world)
    _check_quarantine(world)
    _check_events(world)
    _check_effects_owed(world)
    miscounted = world.rows(DIFFERENCES)
    assert miscounted == [], f"the totals are not those of the rows: {miscounted}"
    _check_calls(world)
    _check_credit(world)
    done = {row.id for row in world.effects.values() if row.state == "done" and row.kind == MAIL}
    assert done <= world.lms.mails.keys(), "a mail is done, and the mail server does not have it"
    for call in world.in_the_air:
        world.reached["a call was carried out after all had settled"] += 1
        world.lms.land(call)
    _check_credit(world)


def _check_outcomes(world: World) -> None:
    rows = world.rows(_INBOX)
    keys = Counter((row.source, row.command_id) for row in rows)
    assert keys == Counter(world.first.keys()), "an outcome for each command, and for nothing else"
    assert keys.keys() >= {(command.source, command.id) for command in world.commands}
    assert [row for row in rows if row.outcome is None] == []


def _check_acts(world: World) -> None:
    """Check that commands changed the attempts that they named, and when."""
    bodies = {key: item.body for key, item in world.first.items()}
    steps = world.rows(acts.STEPS)
    assert list(acts.misdirected(steps, world.rows(acts.REMOVALS), bodies)) == []
    assert list(acts.mistimed(steps, bodies)) == []
    for row in world.rows(_REFUSALS):
        data: Any = world.first[row.source, row.command_id].command.data
        world.reached[row.code] += 1
        if row.code == "precondition_failed":
            assert data.from_statuses is not None
        elif row.code == "attempt_code_taken":
            assert data.attempt_code is not None
        else:
            is_named = bool(data.attempt_code or data.external_id)
            assert is_named or row.code == "attempt_not_found"
            assert row.outcome == ("ignored" if data.if_missing == "ignore" else "rejected")


def _check_quarantine(world: World) -> None:
    rows = world.rows("SELECT code, body FROM quarantine")
    assert Counter((row.code, bytes(row.body)) for row in rows) == world.quarantined


def _check_events(world: World) -> None:
    """Check that everything that happened was told once, and in the order of each attempt."""
    with world.engine.begin() as connection:
        while event_log.number(connection):
            pass
        events = event_log.read(connection, after=0, rows=MANY_EVENTS)
    told = defaultdict(list)
    for event in events:
        told[event.type].append(event)
    changes = [event for event in events if event.type in (CREATED, CHANGED)]
    versions = defaultdict(list)
    for event in changes:
        versions[event.subject].append(event.data["version"])
    assert versions == {row.code: list(range(1, row.version + 1)) for row in world.rows(_CODES)}
    assert Counter(event.subject for event in told[REMOVED]) == Counter(
        row.code for row in world.rows(_CODES) if row.removed_at is not None
    )
    assert Counter((event.data["source"], event.data["id"]) for event in told[NOT_APPLIED]) == Counter(
        (row.source, row.command_id) for row in world.rows(_INBOX) if row.outcome != "applied"
    )
    assert sum(event.data["count"] for event in told[QUARANTINED]) == world.quarantined.total()
    failed = Counter(event.data["effect_id"] for event in told[FAILED])
    recovered = Counter(event.data["effect_id"] for event in told[RECOVERED])
    done = {str(row.id) for row in world.effects.values() if row.state == "done"}
    assert recovered == Counter(failed.keys() & done)


def _check_effects_owed(world: World) -> None:
    owed = Counter(
        (row.attempt_id, row.kind, row.payload.get("status"), row.command_id)
        for row in world.effects.values()
        if row.kind in KINDS_OF_0_1_0
    )
    assert owed == _demanded(world)


def _demanded(world: World) -> Counter[tuple[UUID, str, str | None, str]]:
    """Count the effects that the committed history demands, by (attempt, kind, status, command)."""
    demanded: Counter[tuple[UUID, str, str | None, str]] = Counter()
    attempts = {row.id: row for row in world.rows(_ATTEMPTS)}
    proctored: dict[UUID, bool] = {}
    for step in world.rows(_TRANSITIONS):
        status, by_cascade = step.to_status, step.effect_id is not None
        data = world.first[step.source, step.command_id].command.data
        if isinstance(data, AttemptCreate):
            proctored[step.attempt_id] = data.taking_as_proctored
        if status in CREDIT:
            demanded[step.attempt_id, "set_credit_status", CREDIT[status], step.command_id] += 1
        if by_cascade or not isinstance(data, AttemptUpdateStatus):
            continue
        if status in CASCADING and data.cascade_effects:
            demanded[step.attempt_id, "cascade_decline", None, step.command_id] += 1
            proctored[step.attempt_id] = proctored.get(step.attempt_id, False) and status != "declined"
        sample = attempts[step.attempt_id].is_sample_attempt
        if status in MAILED and proctored.get(step.attempt_id) and not sample:
            demanded[step.attempt_id, "send_status_email", status, step.command_id] += 1
    return demanded + _demanded_by_removals(world, attempts)


def _demanded_by_removals(
    world: World, attempts: Mapping[UUID, Row[Any]]
) -> Counter[tuple[UUID, str, str | None, str]]:
    # The history does not say which command removed an attempt. The n-th applied removal for a learner and exam
    # removed the n-th attempt.
    removals = defaultdict(list)
    for row in world.rows(
        "SELECT source, command_id FROM inbox JOIN outcomes ON inbox.id = inbox_id"
        " WHERE type = 'exam.attempt.remove.v1' AND outcome = 'applied' ORDER BY handled_at, inbox.id"
    ):
        data: Any = world.first[row.source, row.command_id].command.data
        removals[data.exam_id, data.user_id].append(row.command_id)
    credited = {step.attempt_id for step in world.rows(_TRANSITIONS) if step.to_status in CREDIT}
    demanded: Counter[tuple[UUID, str, str | None, str]] = Counter()
    for attempt in attempts.values():
        if attempt.removed_at is None:
            continue
        command_id = removals[attempt.exam_id, attempt.user_id].pop(0)
        demanded[attempt.id, "delete_student_attempt", None, command_id] += 1
        if attempt.id in credited:
            demanded[attempt.id, "remove_credit_status", None, command_id] += 1
    assert not any(removals.values())
    return demanded


def _check_calls(world: World) -> None:
    """Check that each done effect was answered, and that calls were repeated only after a lost answer or record."""
    results = {(row.effect_id, row.number): row.result for row in world.rows(_TRIES)}
    world.reached["a try was lost"] += [*results.values()].count("lost")
    world.reached["a cascade was folded in while it ran"] += [*results.values()].count("folded")
    calls = defaultdict(list)
    for call in world.lms.calls:
        calls[call.effect_id].append(call)
        if call.heard and (call.effect_id, call.number) not in world.excused:
            assert results[call.effect_id, call.number] == "done", "an answer was lost, and nobody lost it"
    for effect in world.effects.values():
        if effect.kind == EffectKind.CASCADE_DECLINE:
            continue
        landed = [call for call in calls[effect.id] if call.landed]
        if effect.state == "done":
            [done] = [call for call in landed if results[effect.id, call.number] == "done"]
            assert done.heard
        if effect.target is None:
            assert effect.state in ("done", "cancelled"), "owed, whatever comes after it"
        lost = [call for call in landed if (effect.id, call.number) in world.excused]
        assert len(landed) <= 1 + len(lost)
        if len(landed) > 1:
            world.reached[f"{effect.kind} was carried out again"] += 1


# --- credit ----------------------------------------------------------------------------------------------


def _check_credit(world: World) -> None:
    newest = {row.target: row for row in world.effects.values() if row.target is not None}
    by_target = {_target(row): row for row in newest.values()}
    for target, value in _expected_credit(world).items():
        effect = by_target.get(target)
        if effect is None:
            assert target not in world.lms.credit
        elif effect.state == "cancelled":
            _check_cancelled(world, target, effect)
        else:
            assert effect.state == "done"
            assert world.lms.credit.get(target) == value or _landed_late(world, target), (
                "the LMS's credit is not what the last transition says"
            )


def _expected_credit(world: World) -> dict[Target, str | None]:
    """Return by (user, course, content) the credit of the last transition that owes any, or None."""
    steps = defaultdict(list)
    for row in world.rows(_TRANSITIONS):
        steps[row.attempt_id].append(row.to_status)
    expected: dict[Target, str | None] = {}
    for attempt in world.rows(_ATTEMPTS):
        target = (attempt.user_id, EXAMS[attempt.exam_id], f"content-{attempt.exam_id}")
        expected.setdefault(target, None)
        for status in steps[attempt.id]:
            expected[target] = CREDIT.get(status, expected[target])
        if attempt.removed_at is not None:
            expected[target] = None
    return expected


def _landed_late(world: World, target: Target) -> bool:
    """Return whether an abandoned call was the last to change an LMS that ignores the sequence."""
    applied = world.lms.applied[target]
    return not world.honours_sequence and bool(applied) and applied[-1].late


def _check_cancelled(world: World, target: Target, effect: Row[Any]) -> None:
    """Check the credit after the newest effect was cancelled.

    The LMS has the value of the cancelled effect if one of its calls arrived, or else the value before.
    """
    applied = world.lms.applied[target]
    if not applied or _landed_late(world, target):
        return
    older = [row for row in world.effects.values() if row.target == effect.target and row.state == "done"]
    last = world.effects[applied[-1].effect_id]
    assert last.state == "cancelled" or last.id == older[-1].id


def _target(effect: Row[Any]) -> Target:
    payload = effect.payload
    return payload["user_id"], payload["course_id"], payload["content_id"]
