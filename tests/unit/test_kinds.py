"""The kinds of effect: targets, payloads across releases, and everything that follows from the table."""

import shlex
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any
from uuid import UUID

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

import celeryconfig
from db.compatibility import NEEDED
from events.vocabulary import Outcome, Status
from tests.kinds import KINDS_OF_0_1_0
from worker.celery.queues import effect_queues
from worker.effects.answers import ids as shown_ids
from worker.effects.answers import label, subject
from worker.kind_entry import Payload, UnreadablePayloadError
from worker.kinds import (
    MAX_TARGET_CHARS,
    QUEUES,
    DeliverEvent,
    EffectKind,
    credit_target,
    kind_of,
    owed_by,
    owed_by_removal,
    task_name,
)
from worker.rules.decisions import Decision, Removal
from worker.rules.values import Exam

ids = st.text(min_size=1, max_size=255)
ABOUT = {"exam_id": "7", "user_id": "42", "course_id": "c", "content_id": "x"}
NOW = datetime(2026, 3, 1, tzinfo=UTC)
EXAM = Exam("7", "c", "x", is_proctored=True, is_practice_exam=False, is_active=True)
PROCFILE = Path(celeryconfig.__file__).with_name("Procfile")


# --- targets -------------------------------------------------------------------------------------------


@given(st.tuples(ids, ids, ids), st.tuples(ids, ids, ids))
def test_targets_differ_when_credits_do(one: tuple[str, str, str], other: tuple[str, str, str]) -> None:
    assert (credit_target(*one) == credit_target(*other)) == (one == other)


@given(ids, ids, ids)
def test_a_target_fits_its_index(user_id: str, course_id: str, content_id: str) -> None:
    assert len(credit_target(user_id, course_id, content_id).encode()) <= MAX_TARGET_CHARS


def test_a_target_can_be_read() -> None:
    assert credit_target("42", "course-v1:X+Y", "a/b") == "credit:42/course-v1:X+Y/a%2Fb"
    assert credit_target("a/b", "c", "d") != credit_target("a", "b/c", "d")


def test_a_long_target_is_a_digest() -> None:
    long = credit_target("u" * 255, "c" * 255, "x" * 255)
    assert len(long) == len("credit:") + 64
    assert long != credit_target("u" * 255, "c" * 255, "y" * 255)


def test_both_kinds_of_credit_share_a_target_and_the_others_have_none() -> None:
    owed = payloads()
    targets = {kind: kind.entry.target.of(owed[kind]) for kind in KINDS_OF_0_1_0}
    assert targets == {
        EffectKind.SET_CREDIT_STATUS: "credit:42/c/x",
        EffectKind.REMOVE_CREDIT_STATUS: "credit:42/c/x",
        EffectKind.CASCADE_DECLINE: None,
        EffectKind.SEND_STATUS_EMAIL: None,
        EffectKind.DELETE_STUDENT_ATTEMPT: None,
    }


def test_mails_about_one_attempt_go_in_order_and_nothing_else_does() -> None:
    owed, attempt_id = payloads(), UUID(int=7)
    keys = {kind: kind.entry.target.order_key(owed[kind], attempt_id) for kind in KINDS_OF_0_1_0}
    assert keys == {
        **dict.fromkeys(KINDS_OF_0_1_0),
        EffectKind.SEND_STATUS_EMAIL: f"mail:{attempt_id}",
    }


# --- payloads ------------------------------------------------------------------------------------------


def flags(model: type) -> dict[str, Any]:
    """Every flag of a decision, set."""
    return {field.name: True for field in fields(model) if field.default is False}


def payloads() -> dict[EffectKind, Payload]:
    """What a decision and a removal owe that owe everything, by kind."""
    decision = Decision(Outcome.APPLIED, Status.VERIFIED, credit="satisfied", **flags(Decision))
    removal = Removal(Outcome.APPLIED, remove_credit=[("c", "x")], **flags(Removal))
    owed = (*owed_by(decision, EXAM, "42", NOW), *owed_by_removal(removal, EXAM, "42", "ada"))
    return {kind_of(payload): payload for payload in owed}


def test_each_kind_is_owed_by_something_and_nothing_is_owed_by_chance() -> None:
    assert set(payloads()) == set(EffectKind) - {EffectKind.DELIVER_EVENT}
    assert list(owed_by(Decision(Outcome.APPLIED, Status.STARTED), EXAM, "42", NOW)) == []
    assert list(owed_by_removal(Removal(Outcome.APPLIED), EXAM, "42", "ada")) == []


PLAIN_FIELDS = {"status", "requested_by", "at", "webhook", "type", "to_status", "order"}
"""The fields beside ids. Whoever adds one makes sure that no name or address gets into it."""


@pytest.mark.parametrize("kind", EffectKind)
def test_a_payload_holds_ids_and_no_personal_data(kind: EffectKind) -> None:
    names = {field.name for field in fields(kind.entry.payload)}
    assert {name for name in names if not name.endswith("_id")} <= PLAIN_FIELDS


@dataclass(frozen=True)
class PayloadOf010:
    """What release 0.1.0 reads and writes, whatever the kind."""

    exam_id: str
    user_id: str
    course_id: str
    content_id: str
    status: str | None = None
    requested_by: str | None = None


ADDED_SINCE = {"at"}
"""Fields that 0.1.0 does not know. It never sees them: the release between the two knows that there may be some."""


def _known_to_0_1_0(stored: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in stored.items() if name not in ADDED_SINCE}


@pytest.mark.parametrize("kind", KINDS_OF_0_1_0)
def test_release_0_1_0_reads_what_this_one_writes(kind: EffectKind) -> None:
    written = _known_to_0_1_0(orjson.loads(orjson.dumps(payloads()[kind])))
    old = PayloadOf010(**written)
    assert {name: value for name, value in asdict(old).items() if value is not None} == written


@pytest.mark.parametrize("kind", KINDS_OF_0_1_0)
def test_this_release_reads_what_0_1_0_and_a_newer_one_write(kind: EffectKind) -> None:
    payload = payloads()[kind]
    by_0_1_0 = asdict(PayloadOf010(**_known_to_0_1_0(asdict(payload))))
    assert asdict(kind.entry.read(by_0_1_0)) == {
        **asdict(payload),
        **dict.fromkeys(ADDED_SINCE & asdict(payload).keys()),
    }
    assert kind.entry.read({**asdict(payload), "added_later": {"a": 1}}) == payload


@pytest.mark.parametrize("kind", [EffectKind.SET_CREDIT_STATUS, EffectKind.SEND_STATUS_EMAIL])
@pytest.mark.parametrize("stored", [ABOUT, {**ABOUT, "status": None}])
def test_a_payload_without_what_its_kind_needs_is_refused(kind: EffectKind, stored: dict[str, Any]) -> None:
    with pytest.raises(UnreadablePayloadError, match=r"^the effect's payload has no status$"):
        kind.entry.read(stored)
    assert subject(kind, stored) == kind


@pytest.mark.parametrize("kind", EffectKind)
@pytest.mark.parametrize("stored", [{**ABOUT, "exam_id": 7, "status": "failed"}, [], "x", 7, None])
def test_a_payload_of_another_shape_is_refused_and_shown_by_its_kind(kind: EffectKind, stored: Any) -> None:
    with pytest.raises(
        UnreadablePayloadError, match=r"^the effect's payload cannot be read: (exam_id|it) is of"
    ):
        kind.entry.read(stored)
    assert label(kind, stored, 1) == f"{kind} · try 1"


# --- labels --------------------------------------------------------------------------------------------


def test_a_delivery_says_to_whom_it_brings_what() -> None:
    event = {"webhook": "acme", "type": "exam.attempt.status-changed.v1", "to_status": "submitted"}
    assert label(EffectKind.DELIVER_EVENT, {**ABOUT, **event}, 2) == (
        "webhook acme · status-changed submitted · exam 7 · learner 42 · try 2"
    )
    about_nobody = {"webhook": "acme", "type": "exam.message.quarantined.v1"}
    assert label(EffectKind.DELIVER_EVENT, about_nobody, 1) == "webhook acme · quarantined · try 1"


@pytest.mark.parametrize(
    ("order", "user_id", "key"),
    [("learner", "42", "webhook:acme/42"), ("learner", "", None), ("none", "42", None)],
)
def test_deliveries_of_a_learner_go_in_order_if_the_file_says_so(
    order: str, user_id: str, key: str | None
) -> None:
    payload = DeliverEvent(webhook="acme", type="exam.attempt.created.v1", user_id=user_id, order=order)
    assert EffectKind.DELIVER_EVENT.entry.target.order_key(payload, None) == key


def test_what_a_sender_chose_is_shown_as_it_is() -> None:
    shown = label(EffectKind.CASCADE_DECLINE, {**ABOUT, "exam_id": "course-v1:X+Y", "user_id": "Ü-42"}, 3)
    assert shown == "cascade decline · exam course-v1:X+Y · learner Ü-42 · try 3"
    assert shown_ids(UUID(int=7), "/lms/acme", "5f0c") == f"effect {UUID(int=7)} · command /lms/acme 5f0c"


@pytest.mark.parametrize(
    "forged", ["7 · learner 8", "7\nTask effects.x succeeded", "7\u202e", "'", "7·8", "\x1b[2J"]
)
def test_no_id_forges_a_label_or_a_line(forged: str) -> None:
    shown = label(EffectKind.CASCADE_DECLINE, {**ABOUT, "exam_id": forged}, 1)
    assert shown == f"cascade decline · exam {forged!r} · learner 42 · try 1"
    assert shown_ids(UUID(int=7), forged, forged).endswith(f" · command {forged!r} {forged!r}")
    assert shown.isprintable()


def test_a_kind_of_a_newer_release_is_shown_by_its_name() -> None:
    assert label("from_the_future", ABOUT, 2) == "from_the_future · try 2"


# --- what follows from the table -----------------------------------------------------------------------


def test_the_tasks_and_queues_of_0_1_0_are_where_they_were() -> None:
    routes = celeryconfig.task_routes
    assert {kind: routes[f"effects.{kind}"]["queue"] for kind in KINDS_OF_0_1_0} == {
        EffectKind.SET_CREDIT_STATUS: "invigilator.effects.credit",
        EffectKind.REMOVE_CREDIT_STATUS: "invigilator.effects.credit",
        EffectKind.CASCADE_DECLINE: "invigilator.effects.cascade",
        EffectKind.SEND_STATUS_EMAIL: "invigilator.effects.email",
        EffectKind.DELETE_STUDENT_ATTEMPT: "invigilator.effects.instructor",
    }


def test_each_task_goes_to_a_queue_that_workers_declare() -> None:
    declared = {queue.name for queue in effect_queues("classic")}
    assert {celeryconfig.task_routes[task_name(kind)]["queue"] for kind in EffectKind} == declared


def test_a_kind_after_those_of_0_1_0_needs_a_schema_that_takes_it() -> None:
    """Before 0007 a CHECK refuses its rows. CONTRIBUTING.md says in which release it can come."""
    new = set(EffectKind) - set(KINDS_OF_0_1_0)
    assert not new or NEEDED >= "0007", "set NEEDED in db/compatibility.py"


def workers() -> Iterator[set[str]]:
    """The queues of each Celery worker in the Procfile."""
    for line in PROCFILE.read_text().splitlines():
        words = shlex.split(line)
        if "worker" not in words:
            continue
        options = dict(pairwise(words))
        served = options["--queues"].split(",") if "--queues" in options else QUEUES.values()
        excluded = options.get("--exclude-queues", "").split(",")
        yield set(served) - set(excluded)


def test_the_procfile_serves_each_queue_once_and_no_other() -> None:
    assert sorted(queue for queues in workers() for queue in queues) == sorted(set(QUEUES.values()))
