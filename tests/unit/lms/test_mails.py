from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from events.vocabulary import Status
from worker.lms import mail_templates
from worker.lms.mail_templates import MailText, render
from worker.rules.policy import MAIL_STATUSES


def rendered(status: Status = Status.SUBMITTED, **names: str | None) -> MailText:
    learner, exam = names.get("learner_name") or "Ada", names.get("exam_name") or "Algebra"
    return render(status, learner_name=learner, exam_name=exam, course_name=names.get("course_name", "Maths"))


@pytest.mark.parametrize("status", sorted(MAIL_STATUSES))
def test_each_part_names_the_learner_the_exam_and_the_course(status: Status) -> None:
    mail = rendered(status)

    assert "Algebra" in mail.subject
    for part in (mail.text, mail.html):
        assert all(name in part for name in ("Ada", "Algebra", "Maths"))


def test_each_status_has_its_three_templates_and_there_is_no_other() -> None:
    folder = Path(mail_templates.__file__).with_name("templates")
    parts = (".subject.txt", ".txt", ".html")
    wanted = {f"{status}{part}" for status in MAIL_STATUSES for part in parts}
    assert {file.name for file in folder.iterdir()} == {"layout.html", *wanted}


def test_each_status_has_words_of_its_own() -> None:
    mails = [rendered(status) for status in MAIL_STATUSES]

    for parts in zip(*[(mail.subject, mail.text, mail.html) for mail in mails], strict=True):
        assert len(set(parts)) == len(MAIL_STATUSES)


def test_without_a_course_name_it_is_your_course() -> None:
    mail = rendered(course_name=None)

    assert "Course: your course" in mail.text
    assert "your course" in mail.html


def test_names_are_escaped_in_html_and_only_there() -> None:
    mail = rendered(exam_name="<b>A & B</b>", learner_name="<script>", course_name='"C"')

    assert "&lt;b&gt;A &amp; B&lt;/b&gt;" in mail.html
    assert "<script>" not in mail.html
    assert "<b>A & B</b>" in mail.text
    assert mail.subject.endswith("<b>A & B</b>")


def test_names_are_data_not_templates() -> None:
    assert "{{ 6 * 7 }}" in rendered(exam_name="{{ 6 * 7 }}").text


@given(st.text(min_size=1))
def test_the_subject_is_one_line_that_a_mail_can_carry(name: str) -> None:
    subject = rendered(exam_name=name).subject

    assert len(subject.splitlines()) == 1
    subject.encode()


def test_there_is_no_mail_for_other_statuses() -> None:
    with pytest.raises(ValueError, match="no mail is written for declined"):
        rendered(Status.DECLINED)
