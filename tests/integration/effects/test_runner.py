"""One try of an effect: claim, run, record."""

import re
import threading
from collections.abc import Sequence
from dataclasses import replace
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Connection, select, text
from structlog.typing import EventDict

from db import effects
from db.effects import RecordedTry, TryEnd
from db.models import Effect
from db.states import TryResult
from tests import sample_commands as c
from tests.engines import disposed
from tests.integration.effects.conftest import LEASE_S, Bench, end, until
from tests.integration.effects.conftest import claim as take
from tests.unit.events.messages import TRACE
from worker.commands.handler import Handler
from worker.errors import Permanent, Transient, TryAgainError, TryFailedError
from worker.kinds import EffectKind
from worker.lms.log import LogLms, LogMailer
from worker.lms.ports import CreditRequirement, Origin
from worker.rules.retry import RetryPolicy

END_WAITING = """
SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity
WHERE wait_event_type = 'Lock' AND datname = current_database()
"""
MISFIT = "SELECT nothing FROM nowhere -- ada@example.org"
CREDIT = CreditRequirement("42", c.COURSE, "content-A")


def submitted(bench: Bench, *, proctored: bool = False) -> UUID:
    """An attempt that owes the credit `submitted`; returns the effect's id."""
    bench.apply(c.create("A", taking_as_proctored=proctored), c.update("A", "submitted"))
    return bench.ids(EffectKind.SET_CREDIT_STATUS)[-1]


def test_credit_is_set_once(bench: Bench) -> None:
    # Given an effect that is owed
    effect_id = submitted(bench)
    # When it is run twice
    answers = [bench.run(effect_id), bench.run(effect_id)]
    # Then the call was made once, with its key, and is recorded
    assert answers == ["credit submitted · exam A · learner 42 · try 1: done", "already done"]
    assert bench.credit.statuses == {CREDIT: "submitted"}
    [key] = [call.key for call in bench.credit.calls]
    assert key is not None
    assert key.effect_id == effect_id
    row = bench.row(effect_id)
    assert key.origin == Origin(row.source, row.command_id, str(row.attempt_id))
    assert bench.states() == [("set_credit_status", "done")]
    assert bench.tries(effect_id) == [(1, "done", None)]


def test_a_call_names_the_attempt_by_the_code_that_the_lms_chose_and_the_trace(bench: Bench) -> None:
    bench.apply(
        c.create("A", taking_as_proctored=True, attempt_code="ours/7"),
        c.update("A", "submitted"),
        traceparent=TRACE,
    )
    for effect_id in bench.ids():
        bench.run(effect_id)
    by_credit, by_mail = (
        next(call for call in bench.credit.calls if call.method == method)
        for method in ("set_status", "course_name")
    )
    assert by_credit.key is not None
    assert by_credit.key.origin is not None
    assert by_credit.key.origin.attempt_code == "ours/7"
    assert by_credit.key.origin.traceparent == TRACE
    assert by_mail.args["origin"] == by_credit.key.origin


def test_an_unknown_effect_is_nothing_to_do(bench: Bench) -> None:
    assert bench.runner.run(uuid4(), EffectKind.SET_CREDIT_STATUS).text == "there is no such effect"


def test_a_transient_failure_is_tried_again_when_due(bench: Bench) -> None:
    # Given a service that fails once, and says when to come back
    effect_id = submitted(bench)
    bench.credit.fail_with(Transient("LMS answered 503", retry_after_s=100))
    # When the effect is run, and run again too early
    with pytest.raises(
        TryFailedError, match=r"credit submitted · exam A · learner 42 · try 1: LMS answered 503"
    ):
        bench.run(effect_id)
    assert bench.run(effect_id).startswith("not due before 20")
    # Then it waits at least as long as it was told
    row = bench.row(effect_id)
    assert (row.state, row.last_error) == ("pending", "LMS answered 503")
    assert (row.due_at - row.created_at).total_seconds() >= 100
    # and when it is due it succeeds
    bench.make_due()
    assert bench.run(effect_id).endswith("try 2: done")
    assert bench.tries(effect_id) == [(1, "retry", "LMS answered 503"), (2, "done", None)]
    assert bench.row(effect_id).last_error is None


def test_a_refusal_is_final_and_warned_of_once(bench: Bench, logged: list[EventDict]) -> None:
    effect_id = submitted(bench)
    bench.credit.fail_with(Permanent("LMS answered 400"))
    with pytest.raises(TryFailedError, match="LMS answered 400"):
        bench.run(effect_id)
    assert bench.states() == [("set_credit_status", "failed")]
    assert bench.tries(effect_id) == [(1, "failed", "LMS answered 400")]
    [warning] = [line for line in logged if line["log_level"] == "warning"]
    row = bench.row(effect_id)
    assert (
        warning.items()
        >= {
            "event": "effect failed",
            "effect": effect_id,
            "kind": "set_credit_status",
            "number": 1,
            "queue": "invigilator.effects.credit",
            "source": row.source,
            "command": row.command_id,
            "reason": "LMS answered 400",
        }.items()
    )
    assert warning["attempt"]


def test_a_transient_failure_for_too_long_is_final(bench: Bench) -> None:
    # Given an effect whose first try is longer ago than it may be retried
    bench.retry = RetryPolicy(2, 3600, 50)
    effect_id = submitted(bench)
    bench.execute("UPDATE effects SET retrying_since = now() - interval '51s'")
    # When it fails again
    bench.credit.fail_with(Transient("LMS answered 503"))
    with pytest.raises(TryFailedError):
        bench.run(effect_id)
    # Then it waits for a person
    assert bench.row(effect_id).state == "failed"
    assert re.fullmatch(r"LMS answered 503 \(retried for \d+ s\)", bench.row(effect_id).last_error)


def test_an_unexpected_error_is_recorded_without_its_text(bench: Bench) -> None:
    effect_id = submitted(bench)
    bench.credit.fail_with(ZeroDivisionError("ada@example.org"))  # type: ignore[arg-type]
    with pytest.raises(TryFailedError):
        bench.run(effect_id)
    assert bench.tries(effect_id) == [(1, "retry", "unexpected ZeroDivisionError")]


def test_a_newer_effect_supersedes_an_older_one(bench: Bench) -> None:
    # Given two effects on one target
    older = submitted(bench)
    bench.apply(c.update("A", "verified"))
    newer = bench.ids(EffectKind.SET_CREDIT_STATUS)[-1]
    # When both are run, the newer one first
    bench.run(newer)
    assert bench.run(older) == "overtaken by a newer effect on its target"
    # Then only the newer one was told
    assert [call.args["status"] for call in bench.credit.calls] == ["satisfied"]
    assert bench.row(older).state == "superseded"


def test_a_cancelled_newer_effect_supersedes_nothing(bench: Bench) -> None:
    older = submitted(bench)
    bench.apply(c.update("A", "verified"))
    bench.execute(
        "UPDATE effects SET state = 'cancelled' WHERE id = :id",
        id=bench.ids(EffectKind.SET_CREDIT_STATUS)[-1],
    )
    assert bench.run(older).endswith("done")


def test_a_newer_effect_waits_for_the_one_that_runs(bench: Bench) -> None:
    # Given an effect that runs
    older = submitted(bench)
    claim = bench.claim(older)
    assert claim is not None
    # When a newer one on the same target comes
    bench.apply(c.update("A", "verified"))
    newer = bench.ids(EffectKind.SET_CREDIT_STATUS)[-1]
    # Then it waits, and is not offered
    assert bench.run(newer) == "another has its target, which changes one at a time"
    assert bench.row(newer).offered_until == bench.row(older).lease_until
    # and when the older one has ended it is free at once
    with bench.engine.begin() as connection:
        assert end(connection, claim)
    assert bench.row(newer).offered_until is None
    assert bench.run(newer).endswith("done")


def test_two_workers_that_meet_on_a_target_take_turns(bench: Bench) -> None:
    # Given a worker that is about to take an effect
    older = submitted(bench)
    answers: list[str] = []
    with bench.engine.connect() as connection, connection.begin():
        assert take(connection, older, EffectKind.SET_CREDIT_STATUS)
        connection.exec_driver_sql(
            "SET LOCAL idle_in_transaction_session_timeout = 0"
        )  # the test may be slow
        # When another one takes a newer effect on the same target at that very moment
        bench.apply(c.update("A", "verified"))
        newer = bench.ids(EffectKind.SET_CREDIT_STATUS)[-1]
        other = threading.Thread(target=lambda: answers.append(bench.run(newer)))
        other.start()
        until(lambda: waiting_for_a_lock(bench))
    other.join()
    # Then it waits for the first to end
    assert answers == ["another has its target, which changes one at a time"]
    assert bench.row(newer).offered_until == bench.row(older).lease_until


def waiting_for_a_lock(bench: Bench) -> bool:
    query = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    with bench.engine.begin() as connection:
        return bool(connection.exec_driver_sql(query).scalar())


def test_a_lost_worker_is_succeeded_and_cannot_record(bench: Bench) -> None:
    # Given a worker that took an effect and was never heard of again
    effect_id = submitted(bench)
    lost = bench.claim(effect_id)
    assert lost is not None
    assert bench.run(effect_id) == "another has it"
    bench.expire_leases()
    # When another one runs it
    bench.credit.fail_with(Transient("LMS answered 503"))
    with pytest.raises(TryFailedError):
        bench.run(effect_id)
    # Then the first one's word no longer counts
    with bench.engine.begin() as connection:
        for result in (TryResult.DONE, TryResult.RETRY, TryResult.FAILED):
            assert not end(connection, lost, result, "late", 1)
    assert bench.tries(effect_id) == [
        (1, "lost", "its worker did not report back in time"),
        (2, "retry", "LMS answered 503"),
    ]


def test_a_result_that_comes_too_late_is_only_noted(bench: Bench, logged: list[EventDict]) -> None:
    # Given a call during which the lease ends and somebody else finishes the effect
    effect_id = submitted(bench)

    class SlowCredit(type(bench.credit)):  # type: ignore[misc]
        def set_status(self, *args: object) -> None:
            bench.expire_leases()
            claim = bench.claim(effect_id)
            assert claim is not None
            with bench.engine.begin() as connection:
                end(connection, claim)

    bench.credit = SlowCredit()
    # When the call returns
    bench.run(effect_id)
    # Then the successor's record stands
    assert bench.tries(effect_id)[-1] == (2, "done", None)
    [line] = logged
    assert (line["event"], line["effect"], line["number"]) == (
        "a try came back too late to be recorded",
        effect_id,
        1,
    )


def test_a_result_that_comes_too_late_is_no_success_while_another_has_the_effect(bench: Bench) -> None:
    # Given a call during which the lease ends and somebody else begins
    effect_id = submitted(bench)

    class SlowCredit(type(bench.credit)):  # type: ignore[misc]
        def set_status(self, *args: object) -> None:
            bench.expire_leases()
            assert bench.claim(effect_id) is not None

    bench.credit = SlowCredit()
    # When the call returns, then it is not recorded, and that is what is said
    answer = bench.runner.run(effect_id, EffectKind.SET_CREDIT_STATUS)
    assert answer.text == "came back too late: another has it"
    assert not answer.is_done
    assert bench.row(effect_id).state == "running"


def test_a_failure_that_comes_too_late_is_not_tried_again(bench: Bench) -> None:
    # Given a call that fails after somebody else has begun
    effect_id = submitted(bench)

    class SlowCredit(type(bench.credit)):  # type: ignore[misc]
        def set_status(self, *args: object) -> None:
            bench.expire_leases()
            assert bench.claim(effect_id) is not None
            raise Transient("503")

    bench.credit = SlowCredit()
    # When it returns, then the other's word counts
    answer = bench.runner.run(effect_id, EffectKind.SET_CREDIT_STATUS)
    assert answer.text == "came back too late: another has it"
    assert bench.row(effect_id).state == "running"


def test_a_database_in_which_somebody_is_in_the_way_is_no_failure_of_the_effect(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, logged: list[EventDict]
) -> None:
    effect_id = submitted(bench)

    def claim(connection: Connection, *_: object) -> None:
        connection.execute(text("DO $$ BEGIN RAISE 'no' USING ERRCODE = '55P03'; END $$"))

    monkeypatch.setattr(effects, "claim", claim)
    with pytest.raises(
        TryAgainError, match=r"^the database does not serve us now: OperationalError 55P03 · "
    ):
        bench.run(effect_id)
    [line] = logged
    assert (line["event"], line["log_level"]) == ("an effect was not claimed", "warning")


def test_a_database_that_is_away_is_no_failure_of_the_effect(bench: Bench, logged: list[EventDict]) -> None:
    effect_id = submitted(bench)
    reason = "the database is away: .* failed: Connection refused"
    with disposed("postgresql+psycopg2://nobody@127.0.0.1:1/none") as nowhere:
        runner = replace(bench, engine=nowhere).runner
        with pytest.raises(TryAgainError, match=f"^{reason} · effect {effect_id}$"):
            runner.run(effect_id, EffectKind.SET_CREDIT_STATUS)
    # and that is said in one line
    [line] = logged
    assert (line["event"], line["effect"]) == ("an effect was not claimed", effect_id)
    assert re.match(reason, line["reason"])


def test_a_result_that_cannot_be_recorded_is_tried_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, logged: list[EventDict]
) -> None:
    # Given a release that does not fit the schema
    effect_id = submitted(bench)

    def misfit(connection: Connection, *_: object) -> None:
        connection.execute(text(MISFIT))

    monkeypatch.setattr(effects, "end_tries", misfit)
    # When an effect has run, then it is said with all ids, and where it happened, without the statement
    trail = f"effect {effect_id} · command "
    with pytest.raises(TryAgainError, match=f"try 1: unexpected ProgrammingError 42P01 · {trail}"):
        bench.run(effect_id)
    broke, line = logged
    assert "in misfit" in broke["exception"]
    assert (line["event"], line["effect"], line["number"]) == ("a try was not recorded", effect_id, 1)
    assert "ada@" not in str(logged)
    assert bench.row(effect_id).state == "running"


def test_an_overtaken_effect_of_a_lost_worker_is_superseded(bench: Bench) -> None:
    older = submitted(bench)
    bench.claim(older)
    bench.apply(c.update("A", "verified"))
    bench.expire_leases()
    assert bench.run(older) == "overtaken by a newer effect on its target"
    assert bench.row(older).state == "superseded"
    assert bench.tries(older) == [(1, "lost", "its worker did not report back in time")]


def test_a_later_try_on_a_target_has_a_greater_number(bench: Bench) -> None:
    # Given an effect that was refused, and a newer one that was tried and then cancelled by a person
    older = submitted(bench)
    bench.credit.fail_with(Permanent("LMS answered 400"), Transient("LMS answered 503"))
    with pytest.raises(TryFailedError):
        bench.run(older)
    bench.apply(c.update("A", "verified"))
    newer = bench.ids(EffectKind.SET_CREDIT_STATUS)[-1]
    with pytest.raises(TryFailedError):
        bench.run(newer)
    bench.execute("UPDATE effects SET state = 'cancelled' WHERE id = :id", id=newer)
    # When the older one is retried
    bench.execute("UPDATE effects SET state = 'pending', due_at = now() WHERE id = :id", id=older)
    bench.run(older)
    # Then an LMS that has carried out the cancelled one can tell that this came later
    numbers = [call.key.sequence for call in bench.credit.calls if call.key]
    assert numbers == sorted(set(numbers))
    assert len(numbers) == 3


def test_what_is_only_logged_is_recorded_as_such(bench: Bench) -> None:
    # Given neither LMS nor mail server, and something owed of each kind
    bench.credit = bench.instructor = LogLms()  # type: ignore[assignment]
    bench.mailer = LogMailer()  # type: ignore[assignment]
    submitted(bench, proctored=True)
    bench.apply(c.remove("A"), c.create("B"), c.update("B", "declined"))
    # When all of it is run
    answers = {bench.row(effect_id).kind: bench.run(effect_id) for effect_id in bench.ids()}
    # Then it is done, and each try says that nobody has heard of it, but for what needs nobody
    assert {kind: answer.rpartition(": ")[2] for kind, answer in answers.items()} == {
        EffectKind.SET_CREDIT_STATUS: "logged",
        EffectKind.REMOVE_CREDIT_STATUS: "logged",
        EffectKind.SEND_STATUS_EMAIL: "logged",
        EffectKind.DELETE_STUDENT_ATTEMPT: "logged",
        EffectKind.CASCADE_DECLINE: "done",
    }
    for effect_id in bench.ids():
        row = bench.row(effect_id)
        if row.tries:
            assert (row.state, row.done_at is not None) == ("done", True)
            result = "done" if row.kind == EffectKind.CASCADE_DECLINE else "logged"
            assert bench.tries(effect_id) == [(1, result, None)]


def test_a_mail_that_is_sent_is_done_though_the_lms_is_only_logged(bench: Bench) -> None:
    bench.credit = bench.instructor = LogLms()  # type: ignore[assignment]
    submitted(bench, proctored=True)
    [mail] = bench.ids(EffectKind.SEND_STATUS_EMAIL)
    assert bench.run(mail).endswith("done")
    assert bench.tries(mail) == [(1, "done", None)]


def test_removal_resets_the_work_and_the_credit(bench: Bench) -> None:
    # Given a removed attempt whose credit was never told
    submitted(bench)
    bench.apply(c.remove("A", requested_by="staff-7"))
    # When everything is run, newest first
    for effect_id in reversed(bench.ids()):
        bench.run(effect_id)
    # Then only the removal reached the credit service, and the instructor service knows the username
    assert [call.method for call in bench.credit.calls] == ["remove"]
    assert [dict(call.args) for call in bench.instructor.calls] == [
        {
            "username": "user-42",
            "course_id": c.COURSE,
            "content_id": "content-A",
            "requested_by": "staff-7",
        }
    ]
    assert bench.states() == [
        ("set_credit_status", "superseded"),
        ("remove_credit_status", "done"),
        ("delete_student_attempt", "done"),
    ]


def test_a_cascade_declines_in_the_transaction_that_marks_it_done(bench: Bench) -> None:
    # Given a cascade
    bench.apply(c.create("A"), c.create("B"), c.update("A", "declined"))
    [effect_id] = bench.ids(EffectKind.CASCADE_DECLINE)
    # When it is run twice
    answers = [bench.run(effect_id), bench.run(effect_id)]
    # Then the siblings are declined once, and owe their own credit
    assert answers == ["cascade decline · exam A · learner 42 · try 1: done", "already done"]
    assert bench.states() == [
        ("set_credit_status", "pending"),
        ("cascade_decline", "done"),
        ("set_credit_status", "pending"),
        ("set_credit_status", "pending"),
    ]


def test_a_cascade_that_is_folded_in_while_it_runs_is_done_once(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a cascade that a worker has claimed, and a command that comes just before its transaction
    bench.apply(c.create("A"), c.update("A", "declined"))
    [effect_id] = bench.ids(EffectKind.CASCADE_DECLINE)
    settle = Handler.settle_cascades

    def late(self: Handler, *rest: object) -> list[bool]:
        bench.apply(c.update("B", "started"))
        return settle(self, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(Handler, "settle_cascades", late)
    # When the worker runs it, then the siblings are declined once
    bench.run(effect_id)
    assert bench.tries(effect_id) == [(1, "folded", None)]
    assert [kind for kind, _ in bench.states()].count("set_credit_status") == 3


def test_a_failure_that_comes_too_late_is_only_noted(bench: Bench) -> None:
    # Given a call that is refused after somebody else has finished the effect
    effect_id = submitted(bench)

    class LateRefusal(type(bench.credit)):  # type: ignore[misc]
        def set_status(self, *args: object) -> None:
            bench.execute(
                "UPDATE effects SET state = 'done', done_at = now(), lease_until = NULL WHERE id = :id",
                id=effect_id,
            )
            raise Permanent("LMS answered 400")

    bench.credit = LateRefusal()
    assert bench.run(effect_id).endswith("try 1: done before this try came back")
    assert bench.row(effect_id).state == "done"


def test_a_cascade_that_was_folded_in_meanwhile_is_left_alone(bench: Bench) -> None:
    # Given a cascade that a worker has claimed
    bench.apply(c.create("A"), c.update("A", "declined"))
    [effect_id] = bench.ids(EffectKind.CASCADE_DECLINE)
    claim = bench.claim(effect_id)
    assert claim is not None
    # When a command of the learner comes first
    bench.apply(c.update("B", "started"))
    # Then the handler has done it, and the worker changes nothing
    assert bench.row(effect_id).state == "done"
    assert bench.tries(effect_id) == [(1, "folded", None)]
    before = bench.states()
    bench.expire_leases()
    assert bench.run(effect_id) == "already done"
    assert bench.states() == before


@pytest.mark.parametrize("kind", [EffectKind.SET_CREDIT_STATUS, EffectKind.SEND_STATUS_EMAIL])
def test_a_payload_without_a_status_fails_in_plain_sight(bench: Bench, kind: EffectKind) -> None:
    submitted(bench, proctored=True)
    [effect_id] = bench.ids(kind)
    bench.execute("UPDATE effects SET payload = payload || '{\"status\": null}' WHERE id = :id", id=effect_id)
    with pytest.raises(TryFailedError, match="the effect's payload has no status"):
        bench.run(effect_id)
    assert bench.row(effect_id).state == "failed"


def test_a_result_is_recorded_when_the_database_is_back(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a call after which the database ends the connection once
    effect_id = submitted(bench)
    end_tries = effects.end_tries
    ends = iter(["SELECT pg_terminate_backend(pg_backend_pid())"])

    def interrupted(connection: Connection, ended: Sequence[TryEnd]) -> dict[tuple[UUID, int], RecordedTry]:
        for statement in ends:
            connection.exec_driver_sql(statement)
        return end_tries(connection, ended)

    monkeypatch.setattr(effects, "end_tries", interrupted)
    # When it returns, then its success is recorded all the same, and it was made once
    assert bench.run(effect_id).endswith("done")
    assert bench.tries(effect_id) == [(1, "done", None)]
    assert len(bench.credit.calls) == 1


def test_who_ends_an_effect_while_another_begins_to_wait_sets_it_free(bench: Bench) -> None:
    # Given an effect that runs, whose end is being recorded
    older = submitted(bench)
    claim = bench.claim(older)
    assert claim is not None
    bench.apply(c.update("A", "verified"))
    newer = bench.ids(EffectKind.SET_CREDIT_STATUS)[-1]
    bench.execute("UPDATE effects SET offered_until = now() + interval '1h' WHERE id = :id", id=newer)
    with bench.engine.connect() as connection, connection.begin():
        assert end(connection, claim)
        # When a newer one is looked at before that is committed
        assert bench.run(newer) == "another has its target, which changes one at a time"
    # Then it does not wait for what is over
    assert bench.row(newer).offered_until is None
    assert bench.run(newer).endswith("done")


@pytest.mark.parametrize("loses_its_session", [False, True])
def test_an_offer_is_not_lost_to_who_had_its_effect_locked_for_a_moment(
    bench: Bench, loses_its_session: bool
) -> None:
    # Given an effect that is locked, as by a relay that has found out too late that another one has offered it
    effect_id = submitted(bench)
    answers: list[str] = []
    with bench.engine.connect() as connection, connection.begin():
        connection.execute(select(Effect.id).where(Effect.id == effect_id).with_for_update())
        # When a worker is asked to run it
        worker = threading.Thread(target=lambda: answers.append(bench.run(effect_id)))
        worker.start()
        until(lambda: waiting_for_a_lock(bench))
        if loses_its_session:
            bench.execute(END_WAITING)
    # Then it does so as soon as it can
    worker.join()
    assert answers == ["credit submitted · exam A · learner 42 · try 1: done"]


def test_who_looks_at_an_effect_that_is_locked_judges_nothing_by_what_was(bench: Bench) -> None:
    # Given an older effect with its row locked, as by a relay that is stopped before it commits
    older = submitted(bench)
    with bench.engine.connect() as connection, connection.begin():
        connection.execute(select(Effect.id).where(Effect.id == older).with_for_update())
        # When a worker looks at it, and a newer one comes and is done meanwhile
        assert bench.run(older) == "another has it"
        bench.apply(c.update("A", "verified"))
        newer = bench.ids(EffectKind.SET_CREDIT_STATUS)[-1]
        assert bench.run(newer).endswith("done")
    # Then the older one never lands
    assert bench.run(older) == "overtaken by a newer effect on its target"
    assert bench.row(older).state == "superseded"
    assert [call.key.effect_id for call in bench.credit.calls if call.key] == [newer]


def test_a_claim_waits_for_a_database_that_is_away_for_a_moment(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given an effect that was offered, and a database that fails over
    effect_id = submitted(bench)
    claim_them, away = effects.claim, [True, True]

    def claim(connection: Connection, *arguments: Any) -> Any:
        if away:
            away.pop()
            connection.execute(text("DO $$ BEGIN RAISE 'no' USING ERRCODE = '25006'; END $$"))
        return claim_them(connection, *arguments)

    monkeypatch.setattr(effects, "claim", claim)
    monkeypatch.setattr("worker.effects.runner.RECORD_PAUSE_S", 0)
    # When it is run, then it need not be offered again
    assert bench.run(effect_id) == "credit submitted · exam A · learner 42 · try 1: done"


def test_a_success_is_recorded_as_long_as_nobody_else_may_claim_the_effect(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a database that is away for longer than a quarter of the lease when a call has come back
    effect_id = submitted(bench)
    end_tries, clock = effects.end_tries, {"s": 0.0}

    def away(connection: Connection, ended: Sequence[TryEnd]) -> dict[tuple[UUID, int], RecordedTry]:
        clock["s"] += LEASE_S / 5
        if clock["s"] < LEASE_S / 2:
            connection.execute(text("DO $$ BEGIN RAISE 'no' USING ERRCODE = '57P01'; END $$"))
        return end_tries(connection, ended)

    monkeypatch.setattr(effects, "end_tries", away)
    monkeypatch.setattr("worker.effects.runner.RECORD_PAUSE_S", 0)
    monkeypatch.setattr("tenacity.time.monotonic", lambda: clock["s"])
    # When it is back, then the success is recorded, and the call was made once
    assert bench.run(effect_id).endswith("done")
    assert len(bench.credit.calls) == 1
