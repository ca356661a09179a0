"""A mail: to whom it goes, and what it calls the course."""

from pathlib import Path
from uuid import UUID

import pytest

from events.commands import CourseUpsert
from tests import sample_commands as c
from tests.integration.effects.conftest import Bench, run_together
from tests.integration.effects.test_circuit import CREDIT, EMAIL, circuit
from worker.commands.handler import Handler
from worker.errors import Misconfigured, Refused, ServiceError, TryFailedError, Unavailable
from worker.kinds import EffectKind
from worker.lms.mail_templates import MailTemplates
from worker.lms.ports import Deadline, Mail, Origin
from worker.policies import Policies
from worker.rules.policy import MailSettings, Policy

TOLD = "Physics, as we were told"
ANSWERED = "Physics 101"

CANNOT_BE_ASKED = [
    Unavailable("LMS answered 503 to GET /credit/state"),
    Unavailable("GET /credit/state took longer than 5 s"),
    Unavailable("LMS answered 403 to GET /credit/state", retry_after_s=1000),
    Misconfigured("LMS answered 401 to GET /credit/state", setting="INVIGILATOR_LMS_TOKEN"),
    Refused("LMS answered 400 to GET /credit/state"),
]


def owed(bench: Bench) -> UUID:
    """A mail about an attempt at exam A."""
    bench.apply(c.create("A", taking_as_proctored=True), c.update("A", "submitted"))
    return bench.ids(EffectKind.SEND_STATUS_EMAIL)[-1]


def told(bench: Bench, name: str | None) -> None:
    """As `course.upsert` does, or as if it had never come."""
    if name is None:
        bench.execute("DELETE FROM courses")
    else:
        bench.apply(CourseUpsert(course_id=c.COURSE, name=name))


def sent(bench: Bench) -> str:
    """The text of the one mail that was sent."""
    [mail] = bench.mailer.sent
    return mail.text


def test_it_goes_to_the_learner_and_names_exam_and_course(bench: Bench) -> None:
    effect_id = owed(bench)
    bench.credit.course_names[c.COURSE] = ANSWERED
    assert bench.run(effect_id).endswith("done")
    [mail] = bench.mailer.sent
    assert (mail.effect_id, mail.to_address) == (effect_id, "u42@example.org")
    assert ANSWERED in mail.text
    assert "Exam A" in mail.text


@pytest.mark.parametrize(
    ("answered", "stored", "expected"),
    [
        (ANSWERED, TOLD, ANSWERED),
        (ANSWERED, None, ANSWERED),
        (None, TOLD, TOLD),
        (None, None, "your course"),
        (None, " ", "your course"),
    ],
)
def test_the_course_is_called_what_the_lms_says_else_what_we_were_told(
    bench: Bench, answered: str | None, stored: str | None, expected: str
) -> None:
    effect_id = owed(bench)
    told(bench, stored)
    if answered is not None:
        bench.credit.course_names[c.COURSE] = answered
    bench.run(effect_id)
    assert f"Course: {expected}\n" in sent(bench)


def test_a_course_that_was_told_without_a_name_has_none(bench: Bench) -> None:
    effect_id = owed(bench)
    bench.apply(CourseUpsert(course_id=c.COURSE, name=None))
    bench.run(effect_id)
    assert "Course: your course\n" in sent(bench)


@pytest.mark.parametrize("error", CANNOT_BE_ASKED, ids=str)
def test_when_the_lms_cannot_be_asked_it_is_what_we_were_told(bench: Bench, error: ServiceError) -> None:
    effect_id = owed(bench)
    told(bench, TOLD)
    bench.credit.fail_with(error)
    assert bench.run(effect_id).endswith("done")
    assert TOLD in sent(bench)
    # and that the LMS is in trouble is no matter of the mail server, nor is it counted twice
    assert (circuit(bench, EMAIL), circuit(bench, CREDIT)) == (None, None)


@pytest.mark.parametrize("error", CANNOT_BE_ASKED, ids=str)
def test_when_nobody_can_tell_the_mail_waits(bench: Bench, error: ServiceError) -> None:
    effect_id = owed(bench)
    told(bench, None)
    bench.credit.fail_with(error)
    with pytest.raises(TryFailedError):
        bench.run(effect_id)
    assert bench.mailer.calls == []
    assert bench.row(effect_id).state == "pending"
    assert bench.tries(effect_id) == [(1, "retry", str(error))]
    assert circuit(bench, EMAIL) is None
    # until one of them can
    bench.make_due()
    bench.credit.course_names[c.COURSE] = ANSWERED
    assert bench.run(effect_id).endswith("done")


def test_a_name_of_spaces_is_none(bench: Bench) -> None:
    effect_id = owed(bench)
    told(bench, " ")
    bench.credit.fail_with(Unavailable("LMS answered 503 to GET /credit/state"))
    with pytest.raises(TryFailedError):
        bench.run(effect_id)


def test_while_the_circuit_of_the_lms_is_open_it_is_not_asked(bench: Bench) -> None:
    # Given an LMS that is left alone
    effect_id = owed(bench)
    bench.credit.course_names[c.COURSE] = ANSWERED
    bench.execute("INSERT INTO circuits VALUES (:queue, 5, now() + interval '1h')", queue=CREDIT)
    # When a mail has no name for the course, then it waits
    told(bench, None)
    with pytest.raises(TryFailedError, match="the LMS is not asked for the course's name"):
        bench.run(effect_id)
    # and with one it goes out
    bench.make_due()
    told(bench, TOLD)
    assert bench.run(effect_id).endswith("done")
    assert TOLD in sent(bench)
    assert bench.credit.calls == []


def test_when_the_lms_may_be_probed_it_is_asked(bench: Bench) -> None:
    # Or nobody would ever ask it where no credit is owed
    effect_id = owed(bench)
    bench.credit.course_names[c.COURSE] = ANSWERED
    bench.execute("INSERT INTO circuits VALUES (:queue, 5, now())", queue=CREDIT)
    bench.run(effect_id)
    assert ANSWERED in sent(bench)


def test_asking_leaves_time_to_send(bench: Bench) -> None:
    # Given an LMS that takes all the time that it is given
    effect_id = owed(bench)
    told(bench, TOLD)
    given: list[float] = []

    class Slow(type(bench.credit)):  # type: ignore[misc]
        def course_name(
            self, user_id: str, course_id: str, origin: Origin | None, deadline: Deadline
        ) -> str | None:
            given.append(deadline.seconds)
            raise deadline.late("GET /credit/state")

    bench.credit = Slow()
    # When the mail is sent, then there is as much left for the mail server
    assert bench.run(effect_id).endswith("done")
    assert given[0] <= 10 / 2


def test_each_of_a_group_has_its_own_courses_name(bench: Bench) -> None:
    bench.apply(c.exam("X", course_id="other"), CourseUpsert(course_id="other", name="Chemistry"))
    told(bench, TOLD)
    first = owed(bench)
    bench.apply(c.create("X", taking_as_proctored=True), c.update("X", "submitted"))
    second = bench.ids(EffectKind.SEND_STATUS_EMAIL)[-1]
    run_together(bench.runner, [(one, EffectKind.SEND_STATUS_EMAIL) for one in (first, second)])
    texts = {mail.effect_id: mail.text for mail in bench.mailer.sent}
    assert (TOLD in texts[first], "Chemistry" in texts[first]) == (True, False)
    assert (TOLD in texts[second], "Chemistry" in texts[second]) == (False, True)


# --- the learner's language and time, and the course's provider ----------------------------------------------


def only_mail(bench: Bench) -> Mail:
    [mail] = bench.mailer.sent
    return mail


def test_it_is_in_the_learners_language_and_time(bench: Bench) -> None:
    # Given a learner whose language and zone are told when the mail is already owed
    effect_id = owed(bench)
    bench.execute("UPDATE transitions SET at = '2026-11-28T23:30Z' WHERE to_status = 'submitted'")
    told(bench, TOLD)
    bench.apply(c.learner().model_copy(update={"language": "es-MX", "time_zone": "Asia/Tokyo"}))
    # When it is sent
    bench.run(effect_id)
    # Then it tells the moment of that change, and not of the attempt's others
    mail = only_mail(bench)
    assert mail.subject == "Se ha entregado su examen supervisado: Exam A"
    assert "Entregado: 29 de noviembre de 2026, 08:30 (Asia/Tokyo)\n" in mail.text


def test_each_mail_of_an_attempt_has_the_time_of_its_own_change(bench: Bench) -> None:
    told(bench, TOLD)
    first = owed(bench)
    bench.apply(c.update("A", "verified"))
    second = bench.ids(EffectKind.SEND_STATUS_EMAIL)[-1]
    bench.execute("UPDATE transitions SET at = '2026-11-28T09:00Z' WHERE to_status = 'submitted'")
    bench.execute("UPDATE transitions SET at = '2026-11-28T10:00Z' WHERE to_status = 'verified'")
    for effect_id in (first, second):
        bench.run(effect_id)
    texts = {mail.effect_id: mail.text for mail in bench.mailer.sent}
    assert "Submitted: 28 November 2026, 09:00 (UTC)\n" in texts[first]
    assert "Verified: 28 November 2026, 10:00 (UTC)\n" in texts[second]


@pytest.mark.parametrize("gives_credit", [True, False, None])
def test_it_speaks_of_credit_unless_the_course_gives_none(bench: Bench, gives_credit: bool | None) -> None:
    # Given a course as the LMS describes it, or that it never did
    bench.apply(c.create("A", taking_as_proctored=True), c.update("A", "rejected"))
    told(bench, None)
    if gives_credit is not None:
        bench.apply(CourseUpsert(course_id=c.COURSE, name=TOLD, gives_credit=gives_credit))
    bench.run(bench.ids(EffectKind.SEND_STATUS_EMAIL)[-1])
    assert ("You will not get credit" in only_mail(bench).text) == (gives_credit is not False)


def test_it_has_the_policy_and_the_templates_of_the_courses_provider(bench: Bench, tmp_path: Path) -> None:
    folder = tmp_path / "providers/acme"
    folder.mkdir(parents=True)
    (folder / "layout.txt").write_text("Acme: {% block title %}{% endblock %}, ask {{ contact }}")
    policies = Policies(providers={"acme": Policy(mail=MailSettings(contact="Bob"))})
    bench.handler = Handler(policies, instructor=True)
    bench.mail_templates = MailTemplates(tmp_path)
    effect_id = owed(bench)
    bench.apply(CourseUpsert(course_id=c.COURSE, name=TOLD, provider="acme"))
    bench.run(effect_id)
    assert only_mail(bench).text == "Acme: Your proctored exam was submitted, ask Bob"


def test_a_template_that_fails_now_is_tried_again_and_quotes_nothing(bench: Bench, tmp_path: Path) -> None:
    # Given a template that works with the sample, and not with this exam
    (tmp_path / "default").mkdir()
    (tmp_path / "default/layout.txt").write_text("{{ 1 // ('Mechanics' in exam_name) }}")
    bench.mail_templates = MailTemplates(tmp_path)
    told(bench, TOLD)
    effect_id = owed(bench)
    with pytest.raises(TryFailedError) as caught:
        bench.run(effect_id)
    assert "ZeroDivisionError" in str(caught.value)
    assert bench.row(effect_id).state == "pending"
    assert bench.mailer.calls == []
