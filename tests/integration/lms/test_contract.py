"""What every adapter of a port does, the fakes included: one suite over all of them."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID, uuid4

import pytest

from invigilator.demo.reference import MailSink, ReferenceLms
from tests.fakes.lms import FakeCredit, FakeInstructor, FakeMailer
from worker.errors import Transient
from worker.lms.http import HttpLms
from worker.lms.log import LogLms
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


@pytest.fixture(params=["fake", "http"])
def instructor(request: pytest.FixtureRequest) -> InstructorService:
    if request.param == "http":
        return request.getfixturevalue("http")  # type: ignore[no-any-return]
    return FakeInstructor()


@pytest.fixture(params=["fake", "smtp"])
def mailer(request: pytest.FixtureRequest) -> Mailer:
    if request.param == "smtp":
        return request.getfixturevalue("smtp")  # type: ignore[no-any-return]
    return FakeMailer()


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


def test_credit_may_be_set_again_with_the_same_key(remembering: Remembering) -> None:
    remembering.service.set_status(REQUIREMENT, "submitted", KEY, soon())
    remembering.service.set_status(REQUIREMENT, "submitted", KEY, soon())
    assert remembering.status_of(REQUIREMENT) == "submitted"


def test_credit_that_is_not_there_may_be_removed(remembering: Remembering) -> None:
    remembering.service.remove(REQUIREMENT, KEY, soon())
    assert remembering.status_of(REQUIREMENT) is None


def test_a_course_has_the_name_that_it_was_given(remembering: Remembering) -> None:
    remembering.name_course("course-v1:Org+C+1", "Botany")
    assert remembering.service.course_name("42", "course-v1:Org+C+1", None, soon()) == "Botany"


def test_the_name_of_an_unknown_course_is_none(credit: CreditService) -> None:
    assert credit.course_name("42", "course-v1:Org+C+1", None, soon()) is None


@dataclass(frozen=True)
class Resetting:
    """An instructor service, and a way to read which resets it has carried out."""

    service: InstructorService
    resets: Callable[[], list[Mapping[str, Any]]]


@pytest.fixture(params=["fake", "http"])
def resetting(request: pytest.FixtureRequest) -> Iterator[Resetting]:
    """An instructor service whose resets can be read. `log` keeps none."""
    if request.param == "fake":
        fake = FakeInstructor()
        yield Resetting(fake, lambda: list({call.key: call.args for call in fake.calls}.values()))
        return
    with ReferenceLms() as reference, closing(HttpLms(reference.url)) as http:
        yield Resetting(http, lambda: reference.deletions)


@pytest.mark.parametrize("requested_by", ["grace", None])
def test_an_attempt_may_be_reset_again_with_the_same_key(
    resetting: Resetting, requested_by: str | None
) -> None:
    for _ in range(2):
        resetting.service.delete_student_attempt("ada", "course-1", "block-1", requested_by, KEY, soon())
    assert resetting.resets() == [
        {"username": "ada", "course_id": "course-1", "content_id": "block-1", "requested_by": requested_by}
    ]


@dataclass(frozen=True)
class Posting:
    """A mailer, and a way to read to whom it has sent mails."""

    mailer: Mailer
    recipients: Callable[[], list[str]]


@pytest.fixture(params=["fake", "smtp"])
def posting(request: pytest.FixtureRequest) -> Iterator[Posting]:
    """A mailer whose mails can be read. `log` sends none."""
    if request.param == "fake":
        fake = FakeMailer()
        yield Posting(fake, lambda: [mail.to_address for mail in fake.sent])
        return
    with MailSink() as sink:
        yield Posting(
            SmtpMailer(sink.url, "exams@localhost"), lambda: [mail.recipient for mail in sink.mails]
        )


def test_the_same_mail_may_be_sent_again(posting: Posting) -> None:
    mail = Mail(uuid4(), "ada@example.org", "Algebra", "Hello", "<p>Hello")
    posting.mailer.send(mail, soon())
    posting.mailer.send(mail, soon())
    assert posting.recipients() == ["ada@example.org"] * 2


@pytest.mark.parametrize("credit", ["fake", "http"], indirect=True)
def test_past_the_deadline_credit_is_not_asked(credit: CreditService) -> None:
    with pytest.raises(Transient, match="took longer than"):
        credit.set_status(REQUIREMENT, "submitted", KEY, Deadline.after(0))


def test_past_the_deadline_the_instructor_is_not_asked(instructor: InstructorService) -> None:
    with pytest.raises(Transient, match="took longer than"):
        instructor.delete_student_attempt("ada", "course-1", "block-1", None, KEY, Deadline.after(0))


def test_past_the_deadline_no_mail_is_sent(mailer: Mailer) -> None:
    with pytest.raises(Transient, match="took longer than"):
        mailer.send(Mail(uuid4(), "ada@example.org", "Algebra", "Hello", "<p>Hello"), Deadline.after(0))
