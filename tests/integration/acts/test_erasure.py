"""The erasure of a learner: what goes, what stays, and what happens to what is on its way."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Engine
from structlog.typing import EventDict

from db import acts, event_log
from db.acts import NewAct, Target
from db.effect_filters import Filter
from db.erasure import Erased
from db.people import learner_contact
from events.commands import LearnerUpsert
from events.event_types import EffectFailed
from invigilator.acts import effects, erasure, pauses, quarantine
from invigilator.acts.actor import Action, Actor, Via
from invigilator.acts.erasure import ReasonNamesLearnerError, UnknownLearnerError
from tests import sample_commands as c
from tests.fakes.lms import FakeMailer
from tests.integration.cli.conftest import Record
from tests.integration.effects.conftest import Bench
from tests.integration.effects.test_webhooks import Hooks, webhook
from worker.errors import Transient, TryAgainError, TryFailedError
from worker.kinds import EffectKind
from worker.lms.ports import Deadline, Mail

OPS = Actor("ops@host", True, Via.COMMAND_LINE, "ops@host")
USER = "42"
USERNAME, EMAIL, NAME = "zenobia", "zenobia.q@mail.example", "Zenobia Quux-Ñandú"
NAMES = (USERNAME, EMAIL, NAME)
MAIL = EffectKind.SEND_STATUS_EMAIL

TABLES = "SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"


@dataclass
class BusyMailer(FakeMailer):
    """Does something while it is handed a mail."""

    meanwhile: Callable[[], object] = bool

    def send(self, mail: Mail, deadline: Deadline) -> None:
        self.meanwhile()
        super().send(mail, deadline)


@pytest.fixture
def bench(engine: Engine) -> Bench:
    """A learner who has submitted two exams, and owes a mail about each."""
    bench = Bench(engine)
    bench.apply(
        c.course(),
        c.exam("A"),
        c.exam("B"),
        c.learner("43"),
        learner(),
        c.create("A", taking_as_proctored=True),
        c.create("B", taking_as_proctored=True),
        c.update("A", "submitted"),
        c.update("B", "submitted"),
        c.remove("B", requested_by=USERNAME),
    )
    return bench


def learner() -> LearnerUpsert:
    return LearnerUpsert(
        user_id=USER, username=USERNAME, email=EMAIL, full_name=NAME, language="es", time_zone="Europe/Madrid"
    )


def erase(bench: Bench, user_id: str = USER, reason: str = "request 7") -> Erased:
    with bench.engine.begin() as connection:
        return erasure.erase(connection, user_id, OPS, reason)


def found_in(engine: Engine, *texts: str) -> set[str]:
    """The tables that hold one of the texts somewhere, in a text, in JSON or in bytes."""
    with engine.connect() as connection:
        found = set()
        for table in connection.exec_driver_sql(TABLES).scalars().all():
            rows = connection.exec_driver_sql(
                f'SELECT row_to_json(one)::text FROM "{table}" AS one'
            ).scalars()
            whole = "\n".join(rows).casefold()
            spelt = [way for one in texts for way in (one, json.dumps(one)[1:-1], one.encode().hex())]
            if any(way.casefold() in whole for way in spelt):
                found.add(table)
        return found


def act(bench: Bench, **other: Any) -> None:
    values = {"action": "retry", "filter": {}, "number": 1, "reason": f"{NAME} has called", **other}
    with bench.engine.begin() as connection:
        acts.append(connection, NewAct("ops@host", True, "command line", None, **values))


def scatter(bench: Bench) -> None:
    """Names in every place that can hold them."""
    record = Record(bench.engine)
    upsert = json.dumps({"data": {"user_id": USER, "full_name": NAME, "email": [EMAIL]}}).encode()
    record.quarantine(upsert, {"x-name": NAME}, user_id=USER)
    record.quarantine(upsert)  # as an older release has kept it
    record.quarantine(b"\xff{ " + EMAIL.encode())
    bench.execute(
        "INSERT INTO tries (effect_id, number, started_at, finished_at, result, error)"
        " SELECT id, 1, now(), now(), 'failed', 'unknown_user:' || :name FROM effects WHERE user_id = '42'",
        name=USERNAME.upper(),
    )
    bench.execute("UPDATE effects SET last_error = 'no ' || :name WHERE user_id = '42'", name=NAME)
    bench.execute("INSERT INTO circuits (queue, failures, reason) VALUES ('q', 1, :text)", text=f"no {EMAIL}")
    bench.execute("INSERT INTO causes (id, kind, reason) VALUES ('1', 'k', :text)", text=f"no {EMAIL}")
    bench.execute(
        "INSERT INTO pauses (id, kind, reason) VALUES (gen_random_uuid(), 'k', :text)", text=f"{EMAIL} asks"
    )
    failed = EffectFailed(effect_id=uuid4(), kind=MAIL, attempt_code="a", reason=f"no {NAME}", tries=1)
    with bench.engine.begin() as connection:
        now = connection.exec_driver_sql("SELECT now()").scalar_one()
        event_log.write(connection, [event_log.row(uuid4(), failed, now, user_id=USER)])
    act(bench, user_id=USER)
    act(bench, targets=[Target(bench.ids(MAIL)[0], "failed", "pending")])


def scalars(bench: Bench, statement: str) -> list[Any]:
    with bench.engine.connect() as connection:
        return list(connection.exec_driver_sql(statement).scalars())


def reasons(bench: Bench) -> list[str | None]:
    """Of the rows of the audit, newest first. The chain holds."""
    with bench.engine.connect() as connection:
        assert acts.verify(connection).holds
        return [one["reason"] for one in acts.acts(connection)]


# --- what goes ---------------------------------------------------------------------------------------------


def test_no_name_and_no_address_is_left_anywhere(bench: Bench) -> None:
    scatter(bench)
    places = {"learners", "quarantine", "effects", "tries", "circuits", "causes", "pauses", "events", "acts"}
    assert found_in(bench.engine, *NAMES) == places
    erase(bench)
    assert found_in(bench.engine, *NAMES, "Madrid") == set()


def test_the_record_stays_under_the_id(bench: Bench) -> None:
    def record() -> Any:
        with bench.engine.connect() as connection:
            tables = ("attempts", "transitions", "inbox", "outcomes")
            return [connection.exec_driver_sql(f"SELECT * FROM {table} ORDER BY 1").all() for table in tables]

    before = record()
    erase(bench)
    assert record() == before
    with bench.engine.connect() as connection:
        contact = learner_contact(connection, USER)
    assert (contact.username, contact.email, contact.full_name) == ("erased-42", "", None)


def test_what_is_others_stays(bench: Bench) -> None:
    record = Record(bench.engine)
    record.quarantine(b'{"data": {"user_id": "43"}, "note": "42"}')
    record.quarantine(b"{", user_id="43")
    act(bench, user_id="43", reason="a reason")
    act(bench, targets=[Target(one, "failed", "pending") for one in (bench.ids()[0], uuid4())], reason="both")
    erased = erase(bench)
    assert (erased.messages, erased.reasons) == (0, 0)
    with bench.engine.connect() as connection:
        assert learner_contact(connection, "43").email == "u43@example.org"
        bodies = connection.exec_driver_sql("SELECT octet_length(body) FROM quarantine").scalars().all()
    assert all(bodies)


def test_a_bulk_act_on_the_learners_effects_loses_its_reason_in_all_rows(bench: Bench) -> None:
    owed = bench.ids(MAIL)
    bench.execute("UPDATE effects SET state = 'failed' WHERE id = ANY (:ids)", ids=owed)
    effects.run(effects.start(bench.engine, OPS, Action.RETRY, Filter(kinds=(MAIL,)), "she was ill"))
    # And one that has found nothing
    code, _ = scalars(bench, "SELECT coalesce(attempt_code, id::text) FROM attempts ORDER BY id")
    for nothing in (Filter(user_id=USER), Filter(attempt=code)):
        effects.run(effects.start(bench.engine, OPS, Action.RETRY, nothing, "she was ill"))
    assert erase(bench).reasons == 4
    assert reasons(bench) == ["request 7", None, None, None, None]


def test_the_reason_of_a_pause_goes_when_it_holds_the_address(bench: Bench) -> None:
    with bench.engine.begin() as connection:
        pauses.pause(connection, OPS, MAIL, None, f"no mails to <{EMAIL.upper()}>")
        pauses.resume(connection, OPS, MAIL, "it is over")
    assert erase(bench).reasons == 1
    assert reasons(bench) == ["request 7", "it is over", None]
    assert found_in(bench.engine, EMAIL) == set()


def test_of_an_act_on_several_learners_the_reason_goes_when_it_names_the_learner(bench: Bench) -> None:
    record = Record(bench.engine)
    for user in (USER, "43", "43", "44"):
        record.quarantine(b"{", user_id=user)
    first, second, *others = record.quarantine_ids()
    with bench.engine.begin() as connection:
        quarantine.discard(connection, OPS, [first, second], f"{NAME} has called")
        # Somebody else may have the same name
        quarantine.discard(connection, OPS, others, f"{NAME} has called")
    act(bench, targets=[Target(one, "failed", "pending") for one in (bench.ids()[0], uuid4())])
    assert erase(bench).reasons == 2
    assert reasons(bench) == ["request 7", None, f"{NAME} has called", None]


def test_what_an_act_in_bulk_looked_for_goes_when_it_is_the_address(bench: Bench) -> None:
    for looked_for in (f"550 <{EMAIL}>", "550"):
        effects.start(bench.engine, OPS, Action.RETRY, Filter(error=looked_for), None)
    erase(bench)
    filters = scalars(bench, "SELECT filter ->> 'error' FROM bulk_acts ORDER BY started_at")
    assert filters == ["(erased)", "550"]


@pytest.mark.parametrize(
    "body",
    [
        b"\xff{" + EMAIL.upper().encode(),
        b'{"data": {"email": "zenobia.q\\u0040mail.example"',
        b'{"data": {"email": "ZENOBIA.Q@\\u006Dail.example"}}',
        b"user=9&email=Zenobia.Q%40mail.example",
        f"to {EMAIL}".encode("utf-16-le"),
        f"to {EMAIL}".encode("utf-16-be"),
        f"to {EMAIL.upper()}".encode("utf-32"),
    ],
)
def test_an_address_is_found_in_what_cannot_be_read(bench: Bench, body: bytes) -> None:
    record = Record(bench.engine)
    record.quarantine(body)
    record.quarantine(b'\xff{"email": "\\u0040mail.example", "name": "zenobia"')
    assert erase(bench).messages == 1
    assert scalars(bench, "SELECT octet_length(body) > 0 FROM quarantine ORDER BY id") == [False, True]


@pytest.mark.parametrize(
    "spelt", ["\u00f1andu/x@mail.example", "\u00d1ANDU\\/X@mail.example", "\\u00D1andu/x@MAIL.example"]
)
def test_an_address_that_is_not_ascii_is_found_too(bench: Bench, spelt: str) -> None:
    bench.apply(LearnerUpsert(user_id=USER, username=USERNAME, email="\u00f1andu/x@mail.example"))
    Record(bench.engine).quarantine(b"\xff" + spelt.encode())
    assert erase(bench).messages == 1


def test_a_message_without_its_body_is_not_replayed(bench: Bench) -> None:
    record = Record(bench.engine)
    record.quarantine(b"{", user_id=USER, source="/lms", command_id="7")
    erase(bench)
    with bench.engine.connect() as connection:
        message = connection.exec_driver_sql(
            "SELECT body, headers, detail, source, command_id, erased_at FROM quarantine"
        ).one()
    assert (bytes(message.body), message.headers, message.detail) == (b"", {}, "(erased)")
    assert (message.source, message.command_id) == ("/lms", "7")
    assert message.erased_at is not None


# --- the act -----------------------------------------------------------------------------------------------


def test_it_is_an_act_and_the_chain_holds(bench: Bench) -> None:
    scatter(bench)
    erase(bench)
    with bench.engine.connect() as connection:
        assert acts.verify(connection).holds
        newest, *earlier = acts.acts(connection)
    assert (newest["action"], newest["user_id"], newest["reason"]) == ("erase", USER, "request 7")
    assert newest["details"]["mails"] == 2
    assert [one["reason"] for one in earlier] == [None, None]
    assert all(one["reason_erased"] for one in earlier)


def test_a_second_time_finds_nothing(bench: Bench) -> None:
    first = erase(bench)
    assert (first.names, len(first.mails)) == (True, 2)
    with bench.engine.connect() as connection:
        row = connection.exec_driver_sql("SELECT * FROM learners WHERE user_id = '42'").one()
    second = erase(bench)
    assert (second.names, len(second.mails), second.messages, second.texts) == (False, 0, 0, 0)
    with bench.engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT * FROM learners WHERE user_id = '42'").one() == row


@pytest.mark.parametrize("reason", [f"{NAME} wants it", f"<{EMAIL.upper()}>", f"user {USERNAME}."])
def test_a_reason_that_names_the_learner_is_refused(bench: Bench, reason: str) -> None:
    with pytest.raises(ReasonNamesLearnerError):
        erase(bench, reason=reason)
    with bench.engine.connect() as connection:
        assert learner_contact(connection, USER).email == EMAIL
        assert list(acts.acts(connection)) == []


def test_an_empty_name_is_in_no_reason(bench: Bench) -> None:
    for empty in ("", " "):
        bench.apply(LearnerUpsert(user_id=USER, username="x", email=EMAIL, full_name=empty))
        assert erase(bench, reason="a request, with spaces").names


def test_nobody_of_this_id(bench: Bench) -> None:
    with pytest.raises(UnknownLearnerError):
        erase(bench, "nobody")


def test_one_of_whom_only_the_quarantine_knows(bench: Bench) -> None:
    Record(bench.engine).quarantine(NAME.encode(), user_id="stranger")
    assert erase(bench, "stranger").messages == 1
    assert "quarantine" not in found_in(bench.engine, NAME)


# --- what is on its way ------------------------------------------------------------------------------------


def test_mails_that_are_owed_or_have_failed_are_cancelled(bench: Bench) -> None:
    owed, failed = bench.ids(MAIL)
    bench.execute("UPDATE effects SET state = 'failed' WHERE id = :id", id=failed)
    assert dict(erase(bench).mails) == {owed: "pending", failed: "failed"}
    assert {bench.row(one).state for one in (owed, failed)} == {"cancelled"}
    assert bench.mailer.sent == []


def test_a_mail_that_is_running_may_go_out_but_is_not_tried_again(bench: Bench) -> None:
    # Given a mail that the mail server refuses for now, while the learner is erased
    owed, _ = bench.ids(MAIL)
    bench.mailer = BusyMailer(meanwhile=lambda: erase(bench))
    bench.mailer.fail_with(Transient("503"))
    with pytest.raises(TryAgainError):
        bench.run(owed)
    # When it is tried again, then it fails for good
    bench.make_due()
    ends_for_good(bench, owed, "the learner was erased, so there is no address")


def test_a_mail_that_comes_to_be_owed_later_fails(bench: Bench) -> None:
    erase(bench)
    bench.apply(c.update("A", "rejected"))
    ends_for_good(bench, bench.ids(MAIL)[-1], "the learner was erased, so there is no address")


def test_a_reset_is_not_asked_for_by_the_name_that_took_the_place(bench: Bench) -> None:
    [reset] = bench.ids(EffectKind.DELETE_STUDENT_ATTEMPT)
    erase(bench)
    assert bench.row(reset).state == "pending"
    ends_for_good(bench, reset, "the learner was erased, and the LMS knows them by their username only")


def test_credit_goes_on(bench: Bench) -> None:
    erase(bench)
    assert bench.run(bench.ids(EffectKind.SET_CREDIT_STATUS)[0]).endswith("done")


def test_what_webhooks_are_owed_is_delivered_and_names_nobody(bench: Bench) -> None:
    # Given deliveries that wait while the learner is erased
    hooks = Hooks(bench, acme=webhook())
    bench.apply(c.update("A", "rejected"))
    owed = hooks.deliver()
    assert owed
    erase(bench)
    # Then they are delivered as ever
    for one in owed:
        assert bench.run(one).endswith("done")
    assert len(bench.webhooks.deliveries) == len(owed)
    assert not any(name in str(one) for name in NAMES for one in bench.webhooks.deliveries)


def test_a_later_upsert_is_applied_with_a_warning(bench: Bench, logged: list[EventDict]) -> None:
    erase(bench)
    bench.apply(learner())
    [warning] = [line for line in logged if line["log_level"] == "warning"]
    assert (warning["event"], warning["user"]) == ("an erased learner is described again", "42")
    with bench.engine.connect() as connection:
        assert learner_contact(connection, USER).email == EMAIL
    # And mails go out again, until the next erasure
    bench.apply(c.update("A", "rejected"))
    assert bench.run(bench.ids(MAIL)[-1]).endswith("done")
    assert erase(bench).names
    assert "learners" not in found_in(bench.engine, *NAMES)


def ends_for_good(bench: Bench, effect_id: UUID, reason: str) -> None:
    sent = len(bench.mailer.sent)
    with pytest.raises(TryFailedError, match=reason):
        bench.run(effect_id)
    assert bench.row(effect_id).state == "failed"
    assert len(bench.mailer.sent) == sent
    assert bench.instructor.calls == []
