"""What every adapter of a port does, the fakes included: one suite over all of them."""

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from uuid import UUID, uuid4

import pytest

from invigilator.demo.reference import MailSink, ReferenceLms
from tests.fakes.lms import FakeCredit, FakeInstructor, FakeMailer
from worker.errors import Transient
from worker.lms.http import HttpLms
from worker.lms.log import LogLms, LogMailer
from worker.lms.ports import (
    CallKey,
    CreditRequirement,
    CreditService,
    Deadline,
    InstructorService,
    Mail,
    Mailer,
)
from worker.lms.smtp import SmtpMailer

REQUIREMENT = CreditRequirement("42", "course-v1:Org+C+1", "block-v1:Org+C+1+b")
KEY = CallKey(UUID(int=7), 1)


def soon() -> Deadline:
    return Deadline.after(30)


@pytest.fixture
def http() -> Iterator[HttpLms]:
    with ReferenceLms() as reference, closing(HttpLms(reference.url)) as lms:
        yield lms


@pytest.fixture
def smtp() -> Iterator[SmtpMailer]:
    with MailSink() as sink:
        yield SmtpMailer(sink.url, "exams@localhost")


@pytest.fixture(params=["fake", "log", "http"])
def credit(request: pytest.FixtureRequest) -> CreditService:
    if request.param == "http":
        return request.getfixturevalue("http")  # type: ignore[no-any-return]
    return FakeCredit() if request.param == "fake" else LogLms()


@pytest.fixture(params=["fake", "log", "http"])
def instructor(request: pytest.FixtureRequest) -> InstructorService:
    if request.param == "http":
        return request.getfixturevalue("http")  # type: ignore[no-any-return]
    return FakeInstructor() if request.param == "fake" else LogLms()


@pytest.fixture(params=["fake", "log", "smtp"])
def mailer(request: pytest.FixtureRequest) -> Mailer:
    if request.param == "smtp":
        return request.getfixturevalue("smtp")  # type: ignore[no-any-return]
    return FakeMailer() if request.param == "fake" else LogMailer()


def test_credit_may_be_set_again_with_the_same_key(credit: CreditService) -> None:
    credit.set_status(REQUIREMENT, "submitted", KEY, soon())
    credit.set_status(REQUIREMENT, "submitted", KEY, soon())


@dataclass(frozen=True)
class Remembering:
    """A credit service, a way to read a status in it, and a way to name a course there."""

    service: CreditService
    status_of: Callable[[CreditRequirement], str | None]
    name_course: Callable[[str, str], None]


@pytest.fixture(params=["fake", "http"])
def remembering(request: pytest.FixtureRequest) -> Iterator[Remembering]:
    """A credit service whose memory can be read. `log` has none."""
    if request.param == "fake":
        fake = FakeCredit()
        yield Remembering(fake, fake.statuses.get, fake.course_names.__setitem__)
        return
    with ReferenceLms() as reference, closing(HttpLms(reference.url)) as http:

        def status_of(requirement: CreditRequirement) -> str | None:
            return reference.credit.get(
                (requirement.user_id, requirement.course_id, requirement.namespace, requirement.name)
            )

        yield Remembering(http, status_of, reference.name_course)


def test_credit_is_what_was_set_last_until_it_is_removed(remembering: Remembering) -> None:
    for sequence, status in enumerate(("submitted", "satisfied"), 1):
        remembering.service.set_status(REQUIREMENT, status, CallKey(uuid4(), sequence), soon())
        assert remembering.status_of(REQUIREMENT) == status
    assert remembering.status_of(replace(REQUIREMENT, user_id="43")) is None
    remembering.service.remove(REQUIREMENT, CallKey(uuid4(), 3), soon())
    assert remembering.status_of(REQUIREMENT) is None


def test_a_course_has_the_name_that_it_was_given(remembering: Remembering) -> None:
    remembering.name_course("course-v1:Org+C+1", "Botany")
    assert remembering.service.course_name("42", "course-v1:Org+C+1", soon()) == "Botany"


def test_credit_that_is_not_there_may_be_removed(credit: CreditService) -> None:
    credit.remove(REQUIREMENT, KEY, soon())


def test_the_name_of_an_unknown_course_is_none(credit: CreditService) -> None:
    assert credit.course_name("42", "course-v1:Org+C+1", soon()) is None


@pytest.mark.parametrize("requested_by", ["grace", None])
def test_an_attempt_may_be_reset_again_with_the_same_key(
    instructor: InstructorService, requested_by: str | None
) -> None:
    instructor.delete_student_attempt("ada", "course-1", "block-1", requested_by, KEY, soon())
    instructor.delete_student_attempt("ada", "course-1", "block-1", requested_by, KEY, soon())


def test_the_same_mail_may_be_sent_again(mailer: Mailer) -> None:
    mail = Mail(uuid4(), "ada@example.org", "Algebra", "Hello", "<p>Hello")

    mailer.send(mail, soon())
    mailer.send(mail, soon())


@pytest.mark.parametrize("credit", ["fake", "http"], indirect=True)
def test_past_the_deadline_credit_is_not_asked(credit: CreditService) -> None:
    with pytest.raises(Transient, match="took longer than"):
        credit.set_status(REQUIREMENT, "submitted", KEY, Deadline.after(0))


@pytest.mark.parametrize("instructor", ["fake", "http"], indirect=True)
def test_past_the_deadline_the_instructor_is_not_asked(instructor: InstructorService) -> None:
    with pytest.raises(Transient, match="took longer than"):
        instructor.delete_student_attempt("ada", "course-1", "block-1", None, KEY, Deadline.after(0))


@pytest.mark.parametrize("mailer", ["fake", "smtp"], indirect=True)
def test_past_the_deadline_no_mail_is_sent(mailer: Mailer) -> None:
    with pytest.raises(Transient, match="took longer than"):
        mailer.send(Mail(uuid4(), "ada@example.org", "Algebra", "Hello", "<p>Hello"), Deadline.after(0))
