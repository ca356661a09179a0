"""The handler on a real PostgreSQL: what a batch writes."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, select, text, update
from sqlalchemy.exc import IntegrityError

from db import batch
from db.effects import Wanted, claim
from db.ids import new_receipt
from db.inbox import Handled
from db.models import (
    Attempt,
    Effect,
    HandledCommand,
    InboxEntry,
    Learner,
    QuarantinedMessage,
    Transition,
    Try,
)
from db.quarantine import Unreadable
from events.commands import CommandData
from events.vocabulary import Outcome, OutcomeCode, QuarantineCode
from tests import sample_commands as c
from tests.kinds import KINDS_OF_0_1_0
from worker.commands import command_types
from worker.commands.handler import ClaimedCascade, Handler, Written
from worker.commands.records import Cause
from worker.kinds import EffectKind
from worker.policies import Policies
from worker.rules.policy import PRESETS

HANDLER = Handler(Policies(), instructor=True)
SETUP = [
    c.course(),
    c.exam("A"),
    c.exam("B"),
    c.exam("C"),
    c.exam("practice", is_practice_exam=True),
    c.exam("timed", is_proctored=False),
    c.exam("inactive", is_active=False),
    c.exam("elsewhere", course_id="course-2"),
    c.learner(),
    c.learner("43"),
]

Apply = Callable[..., list[Handled]]


@pytest.fixture
def apply(connection: Connection) -> Apply:
    """Applies commands as one batch, on a record with a course, its exams and two learners."""

    def run(*data: CommandData, handler: Handler = HANDLER) -> list[Handled]:
        return c.apply(handler, connection, [c.stamped(one) for one in data])

    run(*SETUP)
    return run


def statuses(connection: Connection, user_id: str = "42") -> dict[str, str]:
    rows = connection.execute(
        select(Attempt.exam_id, Attempt.status).where(
            Attempt.user_id == user_id, Attempt.removed_at.is_(None)
        )
    )
    return {row.exam_id: row.status for row in rows}


def effects(connection: Connection) -> list[tuple[str, str, str | None, str]]:
    query = select(Effect.kind, Effect.payload, Effect.state).where(Effect.kind.in_(KINDS_OF_0_1_0))
    rows = connection.execute(query.order_by(Effect.sequence))
    return [(row.kind, row.payload["exam_id"], row.payload.get("status"), row.state) for row in rows]


def history(connection: Connection, exam_id: str) -> Sequence[Any]:
    return connection.execute(
        select(Transition.version, Transition.from_status, Transition.to_status)
        .join(Attempt, Attempt.id == Transition.attempt_id)
        .where(Attempt.exam_id == exam_id)
        .order_by(Transition.version)
    ).all()


def codes(outcomes: list[Handled]) -> list[tuple[Outcome, OutcomeCode | None]]:
    return [(handled.outcome, handled.code) for handled in outcomes]


def test_a_verified_attempt_owes_credit_and_mail(apply: Apply, connection: Connection) -> None:
    # Given a proctored attempt
    apply(c.create("A", taking_as_proctored=True))
    # When it goes through to verified, in one batch
    outcomes = apply(c.update("A", "started"), c.update("A", "submitted"), c.update("A", "verified"))
    # Then each step is in its history, and each effect is owed, in order
    assert codes(outcomes) == [(Outcome.APPLIED, None)] * 3
    assert history(connection, "A") == [
        (1, None, "created"),
        (2, "created", "started"),
        (3, "started", "submitted"),
        (4, "submitted", "verified"),
    ]
    assert effects(connection) == [
        ("set_credit_status", "A", "submitted", "pending"),
        ("send_status_email", "A", "submitted", "pending"),
        ("set_credit_status", "A", "satisfied", "pending"),
        ("send_status_email", "A", "verified", "pending"),
    ]
    attempt = connection.execute(select(Attempt.started_at, Attempt.completed_at)).one()
    assert attempt.started_at is not None
    assert attempt.completed_at is not None


def test_refusals_change_nothing(apply: Apply, connection: Connection) -> None:
    # Given a completed attempt
    apply(c.create("A"), c.update("A", "verified"))
    owed = effects(connection)
    # When impossible things are asked for
    outcomes = apply(
        c.update("A", "started"),
        c.update("A", "error"),
        c.update("A", "verifed"),
        c.update("A", None),
        c.update("A", "verified"),
        c.update("B", "started"),
        c.update("B", "started", if_missing="ignore"),
        c.update("nowhere", "started"),
        c.update("A", "started", user_id="nobody"),
        c.create("A"),
        c.create("nowhere"),
        c.create("B", user_id="nobody"),
        c.remove("B"),
        c.remove("nowhere"),
    )
    # Then each is answered, and nothing has changed
    assert codes(outcomes) == [
        (Outcome.REJECTED, OutcomeCode.ILLEGAL_TRANSITION),
        (Outcome.REJECTED, OutcomeCode.ILLEGAL_TRANSITION),
        (Outcome.REJECTED, OutcomeCode.UNKNOWN_STATUS),
        (Outcome.REJECTED, OutcomeCode.UNKNOWN_STATUS),
        (Outcome.UNCHANGED, None),
        (Outcome.REJECTED, OutcomeCode.ATTEMPT_NOT_FOUND),
        (Outcome.IGNORED, OutcomeCode.ATTEMPT_NOT_FOUND),
        (Outcome.REJECTED, OutcomeCode.EXAM_NOT_FOUND),
        (Outcome.REJECTED, OutcomeCode.ATTEMPT_NOT_FOUND),
        (Outcome.REJECTED, OutcomeCode.ATTEMPT_EXISTS),
        (Outcome.REJECTED, OutcomeCode.EXAM_NOT_FOUND),
        (Outcome.REJECTED, OutcomeCode.LEARNER_NOT_FOUND),
        (Outcome.REJECTED, OutcomeCode.ATTEMPT_NOT_FOUND),
        (Outcome.REJECTED, OutcomeCode.EXAM_NOT_FOUND),
    ]
    assert statuses(connection) == {"A": "verified"}
    assert effects(connection) == owed


def test_decline_owes_a_cascade_and_clears_the_attempt(apply: Apply, connection: Connection) -> None:
    # Given a proctored attempt with an external id
    apply(c.create("A", taking_as_proctored=True, external_id="ext-1"))
    # When it is declined
    apply(c.update("A", "declined"))
    # Then the cascade is owed and its siblings wait for it
    assert statuses(connection) == {"A": "declined"}
    assert effects(connection) == [
        ("set_credit_status", "A", "failed", "pending"),
        ("cascade_decline", "A", None, "pending"),
    ]
    attempt = connection.execute(select(Attempt.taking_as_proctored, Attempt.external_id)).one()
    assert attempt == (False, None)


@pytest.mark.parametrize("one_batch", [True, False])
def test_a_cascade_owed_is_folded_in_before_the_next_command(
    apply: Apply, connection: Connection, one_batch: bool
) -> None:
    # Given siblings: one submitted, one created, one without an attempt; and another learner
    apply(
        c.create("B", taking_as_proctored=True, external_id="ext-b"),
        c.create("A"),
        c.create("elsewhere"),
        c.create("practice"),
        c.create("B", user_id="43"),
    )
    # When A is declined, and B is started afterwards
    batches = [c.update("A", "declined"), c.update("B", "started")]
    outcomes = apply(*batches) if one_batch else [*apply(batches[0]), *apply(batches[1])]
    # Then B was declined first, and cannot start any more
    assert codes(outcomes) == [
        (Outcome.APPLIED, None),
        (Outcome.REJECTED, OutcomeCode.ILLEGAL_TRANSITION),
    ]
    assert statuses(connection) == {
        "A": "declined",
        "B": "declined",
        "C": "declined",
        "elsewhere": "created",
        "practice": "created",
    }
    assert statuses(connection, "43") == {"B": "created"}
    assert history(connection, "C") == [(1, None, "created"), (2, "created", "declined")]
    # and the cascade is done, each sibling owes its own credit and no mail
    assert effects(connection) == [
        ("set_credit_status", "A", "failed", "pending"),
        ("cascade_decline", "A", None, "done"),
        ("set_credit_status", "B", "failed", "pending"),
        ("set_credit_status", "C", "failed", "pending"),
    ]
    # and an attempt that existed keeps its fields
    kept = connection.execute(
        select(Attempt.taking_as_proctored, Attempt.external_id).where(
            Attempt.exam_id == "B", Attempt.user_id == "42"
        )
    ).one()
    assert kept == (True, "ext-b")


def test_a_cascade_that_cannot_be_read_holds_up_nobody(apply: Apply, connection: Connection) -> None:
    # Given a learner who is owed two cascades, of which one cannot be read
    apply(c.create("A"), c.update("A", "declined"))
    apply(c.exam("other", course_id="course-2"), c.create("other"), c.update("other", "declined"))
    of_a = (Effect.kind == EffectKind.CASCADE_DECLINE) & (Effect.payload["exam_id"].astext == "A")
    connection.execute(update(Effect).where(of_a).values(payload={"user_id": "42"}))
    # When the learner's next commands are handled
    outcomes = apply(c.create("B"), c.update("other", "submitted"))
    # Then they are, and so is the other cascade; this one waits for its task
    assert codes(outcomes) == [(Outcome.APPLIED, None)] * 2
    states = connection.scalars(
        select(Effect.state).where(Effect.kind == EffectKind.CASCADE_DECLINE).order_by(Effect.sequence)
    ).all()
    assert states == ["pending", "done"]


def test_a_cascade_leaves_completed_attempts_alone(apply: Apply, connection: Connection) -> None:
    apply(c.create("B"), c.update("B", "verified"), c.create("A"), c.update("A", "rejected"))
    apply(c.create("timed"))
    assert statuses(connection) == {"A": "rejected", "B": "verified", "C": "declined", "timed": "created"}


def test_the_same_content_is_no_sibling(apply: Apply, connection: Connection) -> None:
    apply(c.exam("twin", content_id="content-A"), c.create("twin"), c.create("A"))
    apply(c.update("A", "declined"), c.update("twin", "started"))
    assert statuses(connection)["twin"] == "started"


def test_removal_owes_reset_and_credit_removal(apply: Apply, connection: Connection) -> None:
    # Given an attempt that once owed credit, and is back in a status that owes none
    apply(c.create("A"), c.update("A", "submitted"), c.update("A", "second_review_required"))
    # When it is removed and created again, in one batch
    outcomes = apply(c.remove("A", requested_by="staff"), c.create("A"), c.remove("A"))
    # Then both effects are owed once for the first, and only the reset for the second
    assert codes(outcomes) == [(Outcome.APPLIED, None)] * 3
    assert effects(connection) == [
        ("set_credit_status", "A", "submitted", "pending"),
        ("remove_credit_status", "A", None, "pending"),
        ("delete_student_attempt", "A", None, "pending"),
        ("delete_student_attempt", "A", None, "pending"),
    ]
    assert statuses(connection) == {}


def test_removal_without_an_instructor_service(apply: Apply, connection: Connection) -> None:
    apply(c.create("A"), c.remove("A"), handler=Handler(Policies(), instructor=False))
    assert effects(connection) == []


def test_credit_that_the_platform_sets_is_not_ours(apply: Apply, connection: Connection) -> None:
    # Given a platform that hears of a submission, and not of a decline
    handler = Handler(Policies().without_credit(), instructor=False)
    # When one attempt is declined, another one submitted, and both are removed
    apply(c.create("A"), c.update("A", "submitted"), c.remove("A"), handler=handler)
    assert effects(connection) == []
    apply(c.create("A"), c.update("A", "declined", cascade_effects=False), c.remove("A"), handler=handler)
    # Then only the decline has credit of ours, which goes with the attempt
    assert effects(connection) == [
        ("set_credit_status", "A", "failed", "pending"),
        ("remove_credit_status", "A", None, "pending"),
    ]


def test_a_course_has_its_providers_policy(apply: Apply, connection: Connection) -> None:
    handler = Handler(Policies(providers={"acme": PRESETS["platform"]}), instructor=True)
    outcomes = apply(
        c.course("acme"), c.create("A"), c.update("A", "started"), c.update("A", "started"), handler=handler
    )
    assert codes(outcomes)[-1] == (Outcome.APPLIED, None)
    assert [row.version for row in history(connection, "A")] == [1, 2, 3]


def test_upserts_change_what_is_there(apply: Apply, connection: Connection) -> None:
    changed = c.learner().model_copy(update={"email": "new@example.org"})
    apply(changed, c.course(), c.exam("A", is_active=False))
    emails = connection.execute(select(Learner.email).where(Learner.user_id == "42")).scalars().all()
    assert emails == ["new@example.org"]


def test_a_learner_who_comes_while_a_batch_waits_for_its_locks_is_known(
    apply: Apply, connection: Connection
) -> None:
    # Given locks that were taken before a learner was there
    found = batch.lock_and_read(connection, [], command_types.needs_of([c.command(c.create("A"))]))
    # Then the reading finds the learner, who is locked before anything is decided
    unit_of_work, outcomes = HANDLER.decide([c.stamped(c.create("A"))], found, datetime.now(UTC))
    assert codes(outcomes) == [(Outcome.APPLIED, None)]
    assert unit_of_work.learners == {"42"}
    unit_of_work.write(connection)
    assert statuses(connection) == {"A": "created"}


def test_cascades_are_settled_together(apply: Apply, connection: Connection) -> None:
    # Given cascades of two learners that workers have, and one that nobody has yet
    both = ("42", "43")
    apply(*(c.create("A", user) for user in both), *(c.update("A", "declined", user) for user in both))
    apply(c.exam("other", course_id="course-2"), c.create("other"), c.update("other", "declined"))
    owed = connection.execute(
        select(Effect).where(Effect.kind == EffectKind.CASCADE_DECLINE).order_by(Effect.sequence)
    ).all()
    wanted = [Wanted(row.id, EffectKind(row.kind), "queue") for row in owed[:2]]
    assert len(claim(connection, wanted, 60)) == 2
    # When both are settled, with one whose try is not the current one
    moments, read = [new_receipt() for _ in owed], EffectKind.CASCADE_DECLINE.entry.read
    claimed = [
        ClaimedCascade(
            row.id, 1, read(row.payload), Cause(row.source, row.command_id, m.at, m.at, m.ids(), row.id)
        )
        for row, m in zip(owed, moments, strict=True)
    ]
    assert HANDLER.settle_cascades(connection, claimed) == [True, True, False]
    # Then their siblings are declined, and nothing else
    for user in both:
        assert statuses(connection, user)["B"] == statuses(connection, user)["C"] == "declined"
    assert statuses(connection)["other"] == "declined"
    assert "elsewhere" not in statuses(connection)
    states = connection.scalars(
        select(Effect.state).where(Effect.kind == EffectKind.CASCADE_DECLINE).order_by(Effect.sequence)
    ).all()
    assert states == ["done", "done", "pending"]
    tries = connection.scalars(select(Try.result)).all()
    assert tries == ["done", "done"]
    # and once only
    assert HANDLER.settle_cascades(connection, claimed) == [False, False, False]


def test_an_empty_batch_is_nothing(connection: Connection) -> None:
    assert c.apply(HANDLER, connection, []) == []


def test_duplicates_are_one_command(connection: Connection) -> None:
    # Given a batch that was handled
    first = [c.received(one) for one in [*SETUP, c.create("A")]]
    start = c.received(c.update("A", "started"), "same")
    c.handle(HANDLER, connection, [*first, start, start])
    # When it comes again, with something new
    c.handle(HANDLER, connection, [*first, start, c.received(c.update("A", "submitted"))])
    # Then each command has one outcome, the first one
    assert connection.execute(select(InboxEntry)).all().__len__() == len(SETUP) + 3
    assert connection.execute(select(HandledCommand)).all().__len__() == len(SETUP) + 3
    assert [row.to_status for row in history(connection, "A")] == ["created", "started", "submitted"]


@pytest.mark.parametrize("one_batch", [True, False])
def test_a_reused_id_goes_to_quarantine(connection: Connection, one_batch: bool) -> None:
    # Given a command
    c.handle(HANDLER, connection, [c.received(one) for one in [*SETUP, c.create("A")]])
    commands = [
        c.received(c.update("A", "started"), "reused"),
        c.received(c.update("A", "verified"), "reused"),
    ]
    # When another one comes with the same id
    batches = [commands] if one_batch else [[command] for command in commands]
    quarantined = [c.handle(HANDLER, connection, batch, shard=3) for batch in batches][-1]
    # Then it is kept, whole, and changes nothing
    assert [message.code for message in quarantined.quarantined] == [QuarantineCode.ID_REUSED]
    assert statuses(connection) == {"A": "started"}
    kept = connection.execute(select(QuarantinedMessage.body, QuarantinedMessage.shard)).one()
    assert kept == (commands[1].body, 3)


def test_what_is_unreadable_is_kept_whole(connection: Connection) -> None:
    message = Unreadable(
        QuarantineCode.NOT_JSON, "is no JSON", {"content-type": "x"}, b"\x00\xff", new_receipt().at
    )
    assert c.handle(HANDLER, connection, [], [message]) == Written([], [message], discarded=0)
    kept = connection.execute(select(QuarantinedMessage.body, QuarantinedMessage.headers)).one()
    assert kept == (b"\x00\xff", {"content-type": "x"})


def test_rolling_back_and_doing_it_again_makes_the_same_ids(engine: Engine) -> None:
    # Given commands that were stamped once
    commands = [c.stamped(one) for one in [*SETUP, c.create("A"), c.update("A", "submitted")]]
    ids = []
    for _ in range(2):
        # When their batch is rolled back and run again
        with engine.connect() as connection, connection.begin() as transaction:
            c.apply(HANDLER, connection, commands)
            ids.append(connection.scalars(select(Effect.id)).all())
            transaction.rollback()
    # Then it is the same batch
    assert ids[0] == ids[1]


def test_the_database_refuses_a_second_live_attempt(apply: Apply, connection: Connection) -> None:
    apply(c.create("A"))
    with pytest.raises(IntegrityError, match="uq_attempts_live"):
        connection.execute(
            text(
                "INSERT INTO attempts SELECT gen_random_uuid(), exam_id, user_id, status, taking_as_proctored,"
                " is_sample_attempt, external_id, started_at, completed_at, credit_owed, version, created_at,"
                " removed_at FROM attempts"
            )
        )
