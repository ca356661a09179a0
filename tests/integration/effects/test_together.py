"""Effects that threads claim, or whose results they record, at the same time: one transaction for all of them."""

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any, cast
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Connection, Engine, event
from sqlalchemy.exc import DBAPIError
from structlog.typing import EventDict

from db import circuits, effects
from db.effects import Claim, RecordedTry, TryEnd
from db.errors import Failure, classify
from db.listening import listening
from db.states import TryResult
from db.wake import EFFECTS_CHANNEL
from tests import sample_commands as c
from tests.gathering import gathering
from tests.integration.effects.conftest import LEASE_S, Bench, claim, end, ending, run_together, until, wanted
from tests.integration.effects.test_circuit import CREDIT, DOWN, deadlocks, let_probe, opened
from tests.integration.effects.test_circuit import circuit as circuit_of
from tests.integration.effects.test_relay import owed
from worker.commands.handler import ClaimedCascade, Handler
from worker.effects import circuit
from worker.effects.runner import LOST_TRIES, Passed, Result, Runner
from worker.errors import Transient, TryAgainError, TryFailedError
from worker.kinds import QUEUES, EffectKind
from worker.rules.retry import CIRCUIT_FAILURES

SET_CREDIT = EffectKind.SET_CREDIT_STATUS
INSTRUCTOR = QUEUES[EffectKind.DELETE_STUDENT_ATTEMPT]


def claim_all(runner: Runner, ids: Sequence[UUID]) -> list[Claim | None]:
    """Each in a thread of its own, all in one group."""
    with gathering(runner.claims) as serve, ThreadPoolExecutor(len(ids)) as pool:
        answers = [pool.submit(runner.claim, one, SET_CREDIT) for one in ids]
        serve(len(ids))
        return [answer.result() for answer in answers]


def record_all(runner: Runner, results: Sequence[Result]) -> list[Future[bool]]:
    """Each in a thread of its own, all in one group."""
    with gathering(runner.results) as serve, ThreadPoolExecutor(len(results)) as pool:
        answers = [pool.submit(runner.record, one) for one in results]
        serve(len(results))
    return answers


def claimed(bench: Bench, number: int) -> list[Claim]:
    """As many effects as learners, claimed, oldest first."""
    claims = [bench.claim(one) for one in owed(bench, number)]
    assert None not in claims
    return [one for one in claims if one is not None]


def done(claim: Claim) -> Result:
    return Result(claim, ending(claim), circuit.note_answer)


def numbers(claims: Sequence[Claim | Passed | None]) -> list[int | Passed | None]:
    """The numbers of the tries, or what stands for them where there are none."""
    return [one.number if isinstance(one, Claim) else one for one in claims]


@pytest.fixture
def transactions(bench: Bench) -> list[str]:
    """How each one has ended, from now on."""
    seen: list[str] = []
    for name in ("commit", "rollback"):
        event.listen(bench.engine, name, lambda _, name=name: seen.append(name))
    return seen


# --- claims ----------------------------------------------------------------------------------------------


def test_a_group_runs_and_is_recorded_as_each_of_it_would_alone(bench: Bench) -> None:
    # Given effects of several kinds
    owed(bench, 3)
    bench.apply(c.create("B", taking_as_proctored=True), c.update("B", "submitted"))
    bench.apply(c.remove("A", "0", requested_by="staff-7"))
    kinds = {one: EffectKind(bench.row(one).kind) for one in bench.ids()}
    overtaken = bench.ids(SET_CREDIT)[0]
    mine = {one: kind for one, kind in kinds.items() if one != overtaken}
    # When all of them are run at the same time
    answers = run_together(bench.runner, list(mine.items()))
    # Then each has called its service once, under its own key, and has its own record
    assert all(answer.endswith("try 1: done") for answer in answers)
    assert {bench.row(one).state for one in mine} == {"done"}
    assert [bench.tries(one) for one in mine] == [[(1, "done", None)]] * len(mine)
    keys = [call.key.effect_id for call in bench.credit.calls if call.key and call.method != "course_name"]
    assert sorted(keys) == sorted(one for one, kind in mine.items() if "credit" in kind)
    assert len(bench.mailer.sent) == len(bench.instructor.calls) == 1
    # and of an older one on the same target nothing came
    assert bench.run(overtaken) == "overtaken by a newer effect on its target"
    assert bench.row(overtaken).state == "superseded"


def test_two_on_one_target_in_a_group(bench: Bench, transactions: list[str]) -> None:
    [older] = owed(bench)
    bench.apply(c.update("A", "verified", "0"))
    newer = bench.ids(SET_CREDIT)[-1]
    runner = bench.runner
    transactions.clear()
    claims = claim_all(runner, [newer, older])
    assert numbers(claims) == [1, None]
    assert transactions == ["commit"]
    assert [bench.row(one).state for one in (older, newer)] == ["superseded", "running"]
    assert [bench.tries(one) for one in (older, newer)] == [[], [(1, None, None)]]


def test_of_a_lost_one_and_a_newer_one_on_its_target(bench: Bench) -> None:
    # Given an effect whose worker has died, and a newer one on its target, both offered
    [older] = owed(bench)
    bench.claim(older)
    bench.apply(c.update("A", "verified", "0"))
    newer = bench.ids(SET_CREDIT)[-1]
    bench.expire_leases()
    bench.execute("UPDATE effects SET offered_until = now() + interval '1h'")
    # When both are claimed in one group
    assert claim_all(bench.runner, [older, newer]) == [None, None]
    # Then the older one has made way, and the newer one is offered again at once
    assert bench.row(older).state == "superseded"
    assert bench.tries(older) == [(1, "lost", "its worker did not report back in time")]
    assert (bench.row(newer).state, bench.row(newer).offered_until) == ("pending", None)
    assert bench.run(newer).endswith("done")


def test_the_same_effect_twice_in_a_group_is_claimed_once(bench: Bench) -> None:
    one, other = owed(bench, 2)
    claims = claim_all(bench.runner, [one, other, one])
    assert claims[1] is not None
    assert sorted(numbers([claims[0], claims[2]]), key=str) == [1, None]
    assert [bench.tries(one), bench.tries(other)] == [[(1, None, None)]] * 2


def test_what_is_not_to_be_claimed_keeps_nobody_else_from_it(bench: Bench) -> None:
    # Given effects that are running, not due, unknown, of another kind, locked, waiting for their target
    running_, later, other_kind, locked, older, good = owed(bench, 6)
    bench.claim(running_)
    bench.execute("UPDATE effects SET due_at = now() + interval '1h' WHERE id = :id", id=later)
    bench.claim(older)
    bench.apply(c.update("A", "verified", "4"))
    newer = bench.ids(SET_CREDIT)[-1]
    group = [
        wanted(running_),
        wanted(later),
        wanted(uuid4()),
        wanted(other_kind, EffectKind.REMOVE_CREDIT_STATUS),
        wanted(locked),
        wanted(newer),
        wanted(good),
    ]
    with bench.engine.connect() as connection, connection.begin():
        connection.exec_driver_sql("SELECT FROM effects WHERE id = %s FOR UPDATE", (str(locked),))
        # When they are claimed in one group with one that is due and free
        claims = bench.runner.claim_together(group)
    # Then that one is claimed
    assert numbers(claims) == [Passed.OVER] * 3 + [None, Passed.OVER, None, 1]
    assert [bench.row(one).tries for one in (later, other_kind, locked, newer)] == [0] * 4
    # and who waits for a target does so until the other's lease ends
    assert bench.row(newer).offered_until == bench.row(older).lease_until


def test_a_target_that_is_just_being_taken_holds_up_only_its_own(
    bench: Bench, transactions: list[str]
) -> None:
    # Given another worker that is about to take an effect
    older, *others = owed(bench, 4)
    runner = bench.runner
    with bench.engine.connect() as connection, connection.begin():
        assert claim(connection, older, SET_CREDIT)
        connection.exec_driver_sql("SET LOCAL idle_in_transaction_session_timeout = 0")  # a slow test
        # When a newer one on its target is claimed with others at that very moment
        bench.apply(c.update("A", "verified", "0"))
        newer = bench.ids(SET_CREDIT)[-1]
        transactions.clear()
        group: list[list[Claim | None]] = []
        thread = threading.Thread(target=lambda: group.append(claim_all(runner, [*others, newer])))
        thread.start()
        until(lambda: waits_for_a_lock(connection))
    thread.join()
    # Then the others are claimed, once
    assert numbers(group[0]) == [1, 1, 1, None]
    assert [bench.tries(one) for one in others] == [[(1, None, None)]] * 3
    # and the newer one waits for the first to end
    assert (bench.row(newer).state, bench.row(newer).tries) == ("pending", 0)
    assert bench.row(newer).offered_until == bench.row(older).lease_until


def waits_for_a_lock(connection: Connection) -> bool:
    query = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    return bool(connection.exec_driver_sql(query).scalar())


def test_of_a_group_one_probes_and_the_others_wait(bench: Bench, transactions: list[str]) -> None:
    # Given a service that may be probed
    ids = opened(bench, 3)
    let_probe(bench)
    runner = bench.runner
    transactions.clear()
    # When several are claimed in one group
    claims = [one for one in claim_all(runner, ids) if one is not None]
    # Then one is the probe, and what the group had done before is undone
    [probe] = claims
    assert probe.probe
    assert transactions[0] == "rollback"
    assert sorted((bench.row(one).state, bench.row(one).tries) for one in ids) == [
        ("pending", 0),
        ("pending", 0),
        ("running", 1),
    ]
    assert sum(len(bench.tries(one)) for one in ids) == 1
    # and its lease is the circuit's
    with bench.engine.begin() as connection:
        left = connection.exec_driver_sql(
            "SELECT extract(epoch FROM open_until - clock_timestamp()) FROM circuits"
        ).scalar_one()
    assert 0 < left <= LEASE_S


def test_a_probe_and_effects_of_a_healthy_service_in_one_group(bench: Bench, transactions: list[str]) -> None:
    [probe] = opened(bench)
    bench.apply(c.create("B", "0", taking_as_proctored=True), c.update("B", "submitted", "0"))
    [mail] = bench.ids(EffectKind.SEND_STATUS_EMAIL)
    let_probe(bench)
    runner = bench.runner
    transactions.clear()
    claims = runner.claim_together([wanted(probe), wanted(mail, EffectKind.SEND_STATUS_EMAIL)])
    assert [isinstance(one, Claim) and one.probe for one in claims] == [True, False]
    assert transactions == ["commit"]


def test_lost_tries_are_counted_for_each_of_a_group(bench: Bench) -> None:
    # Given effects that were lost a different number of times, one of them not the last time, and one never
    never, once, thrice, before = owed(bench, 4)
    lose(bench, once)
    for _ in range(LOST_TRIES):
        lose(bench, thrice)
    lose(bench, before)
    bench.credit.fail_with(Transient("LMS answered 503"))
    with pytest.raises(TryFailedError):
        bench.run(before)
    bench.make_due()
    # When all are claimed in one group
    claims = claim_all(bench.runner, [never, once, thrice, before])
    # Then each that was lost the last time knows how often it was lost
    assert [one and (one.number, one.lost_tries) for one in claims] == [
        (1, 0),
        (2, 1),
        (LOST_TRIES + 1, LOST_TRIES),
        (3, 0),
    ]
    assert [result for _, result, _ in bench.tries(thrice)] == [*["lost"] * LOST_TRIES, None]


def lose(bench: Bench, effect_id: UUID) -> None:
    assert bench.claim(effect_id)
    bench.expire_leases()


# --- what they do ----------------------------------------------------------------------------------------


def declined(bench: Bench, users: str) -> list[tuple[UUID, EffectKind]]:
    """As many cascades as learners, oldest first."""
    bench.apply(*[c.learner(user) for user in users])
    for user in users:
        bench.apply(c.create("A", user), c.create("B", user), c.update("A", "declined", user))
    return [(one, EffectKind.CASCADE_DECLINE) for one in bench.ids(EffectKind.CASCADE_DECLINE)]


def statuses(bench: Bench) -> list[str]:
    """The statuses of every learner's attempts, exam by exam."""
    with bench.engine.begin() as connection:
        rows = connection.exec_driver_sql("SELECT status FROM attempts ORDER BY user_id, exam_id")
        return list(rows.scalars())


def test_cascades_of_a_group_share_a_transaction(bench: Bench, transactions: list[str]) -> None:
    cascades = declined(bench, "012")
    runner = bench.runner
    transactions.clear()
    answers = run_together(runner, cascades)
    assert all(answer.endswith("try 1: done") for answer in answers)
    assert transactions == ["commit"] * 2  # the claims, and the cascades
    assert statuses(bench) == ["declined"] * 9
    assert [bench.tries(one) for one, _ in cascades] == [[(1, "done", None)]] * 3


def test_of_a_group_a_cascade_that_was_folded_in_meanwhile_is_left_alone(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    cascades = declined(bench, "012")
    settle = Handler.settle_cascades
    answers: list[bool] = []

    def late(self: Handler, connection: Connection, claims: Sequence[ClaimedCascade]) -> list[bool]:
        bench.apply(c.update("B", "started", "1"))
        answers.extend(settle(self, connection, sorted(claims, key=lambda one: one.payload.user_id)))
        return answers

    monkeypatch.setattr(Handler, "settle_cascades", late)
    run_together(bench.runner, cascades)
    assert answers == [True, False, True]
    assert [bench.tries(one)[0][1] for one, _ in cascades] == ["done", "folded", "done"]
    assert [kind for kind, _ in bench.states()].count("set_credit_status") == 9


def test_a_cascade_that_fails_fails_alone(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    cascades = declined(bench, "012")
    bad = cascades[1][0]
    settle = Handler.settle_cascades

    def brittle(self: Handler, connection: Connection, claims: Sequence[ClaimedCascade]) -> list[bool]:
        settled = settle(self, connection, claims)
        if bad in [one.effect_id for one in claims]:
            raise ZeroDivisionError
        return settled

    monkeypatch.setattr(Handler, "settle_cascades", brittle)
    runner = bench.runner
    with (
        gathering(runner.claims) as serve,
        gathering(cast("Any", runner.actions[EffectKind.CASCADE_DECLINE])) as settle_all,
        ThreadPoolExecutor(len(cascades)) as pool,
    ):
        answers = [pool.submit(runner.run, *one) for one in cascades]
        serve(len(cascades))
        settle_all(len(cascades))
    assert [type(answer.exception()) for answer in answers] == [type(None), TryAgainError, type(None)]
    assert [bench.tries(one) for one, _ in cascades] == [
        [(1, "done", None)],
        [(1, "retry", "unexpected ZeroDivisionError")],
        [(1, "done", None)],
    ]
    assert statuses(bench).count("declined") == 3 + 1 + 3


def test_a_mail_to_somebody_unknown_keeps_no_other_mail(bench: Bench) -> None:
    # Given mails, one of them to a learner who is not known
    for exam in "ABC":
        bench.apply(c.create(exam, taking_as_proctored=True), c.update(exam, "submitted"))
    mails = [(one, EffectKind.SEND_STATUS_EMAIL) for one in bench.ids(EffectKind.SEND_STATUS_EMAIL)]
    unknown = mails[1][0]
    bench.execute(
        "UPDATE effects SET payload = jsonb_set(payload, '{user_id}', '\"?\"') WHERE id = :id", id=unknown
    )
    # When they are sent at the same time
    with pytest.raises(TryFailedError, match="unexpected KeyError"):
        run_together(bench.runner, mails)
    # Then the others are sent, once, and each has its own exam's name
    assert [bench.row(one).state for one, _ in mails] == ["done", "pending", "done"]
    sent = {mail.effect_id: mail.text for mail in bench.mailer.sent}
    assert len(bench.mailer.sent) == len(sent) == 2
    assert ["Exam A" in sent[mails[0][0]], "Exam C" in sent[mails[2][0]]] == [True, True]
    assert bench.tries(unknown) == [(1, "retry", "unexpected KeyError")]


# --- results ---------------------------------------------------------------------------------------------


def test_each_of_a_group_ends_in_its_own_way(bench: Bench) -> None:
    first, second, third = claimed(bench, 3)
    with bench.engine.begin() as connection:
        ended = effects.end_tries(
            connection,
            [
                ending(first),
                ending(second, TryResult.RETRY, "LMS answered 503", 1000),
                ending(third, TryResult.FAILED, "LMS answered 404"),
            ],
        )
    assert set(ended) == {(one.id, 1) for one in (first, second, third)}
    rows = [bench.row(one.id) for one in (first, second, third)]
    assert [(row.state, row.last_error, row.lease_until, row.offered_until) for row in rows] == [
        ("done", None, None, None),
        ("pending", "LMS answered 503", None, None),
        ("failed", "LMS answered 404", None, None),
    ]
    assert [row.done_at is not None for row in rows] == [True, False, False]
    assert (rows[1].due_at - rows[1].created_at).total_seconds() >= 1000
    assert rows[2].due_at == rows[2].created_at
    assert [bench.tries(one.id) for one in (first, second, third)] == [
        [(1, "done", None)],
        [(1, "retry", "LMS answered 503")],
        [(1, "failed", "LMS answered 404")],
    ]


def test_only_what_comes_too_late_is_refused(
    bench: Bench, transactions: list[str], logged: list[EventDict]
) -> None:
    # Given an effect whose lease ended and that somebody else has taken, among others
    good, late, other = claimed(bench, 3)
    bench.execute("UPDATE effects SET lease_until = now() - interval '1s' WHERE id = :id", id=late.id)
    successor = bench.claim(late.id)
    assert successor is not None
    runner = bench.runner
    transactions.clear()
    # When all are recorded in one group
    answers = record_all(runner, [done(good), done(late), done(other)])
    # Then only the late one is refused
    assert [answer.result() for answer in answers] == [True, False, True]
    assert transactions == ["commit"]
    [line] = [one for one in logged if one["event"] == "a try came back too late to be recorded"]
    assert (line["effect"], line["number"]) == (late.id, 1)
    assert [bench.row(one.id).state for one in (good, late, other)] == ["done", "running", "done"]
    assert bench.tries(late.id)[-1] == (2, None, None)
    # also beside its successor's
    answers = record_all(bench.runner, [done(late), done(successor)])
    assert [answer.result() for answer in answers] == [False, True]
    assert bench.tries(late.id)[-1] == (2, "done", None)


def test_a_text_that_cannot_be_stored_fails_alone(bench: Bench) -> None:
    # Given a result whose text PostgreSQL cannot store, among others
    good, bad, other = claimed(bench, 3)
    unstorable = Result(bad, ending(bad, TryResult.RETRY, "LMS answered \x00", 1), circuit.note_answer)
    # When all are recorded in one group
    answers = record_all(bench.runner, [done(good), unstorable, done(other)])
    # Then only that one is not
    assert [answer.exception() for answer in (answers[0], answers[2])] == [None, None]
    error = answers[1].exception()
    assert isinstance(error, DBAPIError)
    assert classify(error) is Failure.DATA
    assert [bench.row(one.id).state for one in (good, bad, other)] == ["done", "running", "done"]
    assert bench.tries(bad.id) == [(1, None, None)]


def test_a_group_is_recorded_when_the_database_is_back(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a database that ends the connection once, with a group half recorded
    ids = owed(bench, 3)
    end_tries = effects.end_tries
    cuts = iter(["SELECT pg_terminate_backend(pg_backend_pid())"])
    groups: list[int] = []

    def interrupted(connection: Connection, ends: Sequence[TryEnd]) -> Any:
        groups.append(len(ends))
        ended = end_tries(connection, ends)
        for statement in cuts:
            connection.exec_driver_sql(statement)
        return ended

    monkeypatch.setattr(effects, "end_tries", interrupted)
    # When the calls return, then each success is recorded all the same, and each call was made once
    answers = run_together(bench.runner, [(one, SET_CREDIT) for one in ids])
    assert all(answer.endswith("done") for answer in answers)
    assert [bench.tries(one) for one in ids] == [[(1, "done", None)]] * 3
    assert len(bench.credit.calls) == 3
    assert (groups[0], sum(groups[1:])) == (3, 3)


def test_failures_and_answers_of_a_group_count_in_their_order(bench: Bench) -> None:
    # Given failures that would open the circuit, if there were no answer among them
    *failing, answered = claimed(bench, CIRCUIT_FAILURES + 1)
    results = [failure(bench, one) for one in failing]
    # When they are recorded in one group
    bench.runner.record_together([*results[:3], done(answered), *results[3:]])
    # Then the count began anew in between
    assert circuit_of(bench, CREDIT) == (CIRCUIT_FAILURES - 3, False, None)


def failure(bench: Bench, claim: Claim) -> Result:
    def note(connection: Connection, claim: Claim, ended: RecordedTry) -> circuit.Change | None:
        return circuit.note_error(connection, claim, ended, DOWN, bench.retry)

    return Result(claim, ending(claim, TryResult.RETRY, str(DOWN), 1), note)


def test_groups_of_several_services_are_not_in_each_others_way(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given two processes with failures of the same two services, each in an order of its own
    paid = claimed(bench, 2)
    for user in "01":
        bench.apply(c.create("B", user), c.update("B", "submitted", user), c.remove("B", user))
    resets = [bench.claim(one) for one in bench.ids(EffectKind.DELETE_STUDENT_ATTEMPT)]
    groups = [[paid[0], resets[0]], [resets[1], paid[1]]]
    count = circuits.count_failure
    met = threading.Barrier(2)

    def slow(connection: Connection, queue: str, **how: Any) -> int | None:
        counted = count(connection, queue, **how)
        with suppress(threading.BrokenBarrierError):
            met.wait(1)
        return counted

    monkeypatch.setattr(circuits, "count_failure", slow)
    # When both record them at the same time
    before = deadlocks(bench)
    with ThreadPoolExecutor(2) as pool:
        runs = [
            pool.submit(bench.runner.record_together, [failure(bench, one) for one in group if one])
            for group in groups
        ]
        assert [run.result() for run in runs] == [[True, True]] * 2
    # Then one of them waits for the other
    assert deadlocks(bench) == before
    assert [circuit_of(bench, queue) for queue in (CREDIT, INSTRUCTOR)] == [(2, False, None)] * 2


def test_ends_set_free_who_waits_for_their_targets_and_say_so_once(bench: Bench) -> None:
    # Given effects that run, and newer ones on their targets that have been offered
    claims = claimed(bench, 3)
    for user in "012":
        bench.apply(c.update("A", "verified", user))
    waiting = bench.ids(SET_CREDIT)[3:]
    bench.execute("UPDATE effects SET offered_until = now() + interval '1h' WHERE state = 'pending'")
    *ended, left = claims
    # When some of them end in one group
    with counting_notices(bench.engine) as notices, bench.engine.begin() as connection:
        effects.end_tries(connection, [ending(one) for one in ended])
    assert len(notices) == 1
    # Then those that waited for them are free, and nobody else
    assert [bench.row(one).offered_until is None for one in waiting] == [True, True, False]
    # and where nobody waits nothing is said
    bench.execute("UPDATE effects SET offered_until = NULL WHERE state = 'pending'")
    with counting_notices(bench.engine) as notices, bench.engine.begin() as connection:
        assert end(connection, left)
    assert notices == []


@contextmanager
def counting_notices(engine: Engine) -> Iterator[list[Any]]:
    """Every notification that wakes the relays. The list is filled at the end."""
    notices: list[Any] = []
    with listening(engine, EFFECTS_CHANNEL) as connection:
        yield notices
        with connection.cursor() as cursor:
            cursor.execute("SELECT")  # an answer comes after the notifications of what was committed before
        notices.extend(connection.notifies)
