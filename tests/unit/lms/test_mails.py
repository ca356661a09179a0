"""The mails: what they say, in which language, and the templates of a provider."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from babel.messages.catalog import Catalog
from babel.messages.mofile import write_mo
from hypothesis import given
from hypothesis import strategies as st

from events.vocabulary import Status
from worker.errors import ConfigurationError
from worker.lms.mail_templates import OWN_TEMPLATES, MailFacts, MailTemplates, MailText, sample
from worker.rules.policy import MAIL_STATUSES, MailSettings

TEMPLATES = MailTemplates()
FACTS = MailFacts(
    status=Status.SUBMITTED,
    at=datetime(2026, 12, 31, 23, 30, tzinfo=UTC),
    learner_name="Ada",
    exam_name="Algebra",
    course_id="course-v1:acme+maths",
    course_name="Maths",
)


def rendered(status: Status = Status.SUBMITTED, **facts: Any) -> MailText:
    return TEMPLATES.render(replace(FACTS, status=status, **facts))


@pytest.mark.parametrize("status", sorted(MAIL_STATUSES))
def test_each_part_names_the_learner_the_exam_and_the_course(status: Status) -> None:
    mail = rendered(status)

    assert "Algebra" in mail.subject
    for part in (mail.text, mail.html):
        assert all(name in part for name in ("Ada", "Algebra", "Maths"))


def test_each_status_has_its_template_and_there_is_no_other() -> None:
    shared = {"ask.jinja", "layout.html", "layout.subject.txt", "layout.txt"}
    assert {file.name for file in OWN_TEMPLATES.iterdir()} == shared | {
        f"{one}.jinja" for one in MAIL_STATUSES
    }


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


@pytest.mark.parametrize("language", [None, "es"])
def test_names_are_data_not_templates(language: str | None) -> None:
    mail = rendered(exam_name="{{ 6 * 7 }}", learner_name="%(language)s 100%", language=language)
    assert "{{ 6 * 7 }}" in mail.text
    assert "%(language)s 100%" in mail.text
    assert "%(language)s 100%" in mail.html


@given(st.text(min_size=1), st.sampled_from([None, "ar"]))
def test_the_subject_is_one_line_that_a_mail_can_carry(name: str, language: str | None) -> None:
    subject = rendered(exam_name=name, language=language).subject

    assert len(subject.splitlines()) == 1
    subject.encode()


def test_there_is_no_mail_for_other_statuses() -> None:
    with pytest.raises(ValueError, match="no mail is written for declined"):
        rendered(Status.DECLINED)


# --- when, what comes next, and whom to ask ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "label"),
    [(Status.SUBMITTED, "Submitted"), (Status.VERIFIED, "Verified"), (Status.REJECTED, "Decided")],
)
def test_the_time_is_that_of_the_learners_zone_else_utc(status: Status, label: str) -> None:
    assert f"{label}: 31 December 2026, 23:30 (UTC)\n" in rendered(status).text
    there = rendered(status, time_zone="Europe/Madrid")
    assert f"{label}: 1 January 2027, 00:30 (Europe/Madrid)\n" in there.text
    assert "1 January 2027, 00:30 (Europe/Madrid)" in there.html


@pytest.mark.parametrize(
    "zone", ["Mars/Olympus", "Europe", "/etc/passwd", "a" * 300, "localtime", "posixrules", "right/UTC"]
)
def test_a_zone_that_is_none_is_utc(zone: str) -> None:
    assert "23:30 (UTC)" in rendered(time_zone=zone).text


def test_the_day_until_which_a_review_takes_is_that_of_the_learners_zone() -> None:
    in_a_week = MailSettings(review_days=7)
    assert "finished by 7 January 2027." in rendered(settings=in_a_week).text
    assert "finished by 8 January 2027." in rendered(settings=in_a_week, time_zone="Europe/Madrid").text
    assert "finished by" not in rendered().text
    assert "finished by" not in rendered(Status.VERIFIED, settings=in_a_week).text


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (MailSettings(), "please ask your course team.\n"),
        (MailSettings(contact="Acme support"), "please contact: Acme support\n"),
        (
            MailSettings(contact_url="https://a.example/help"),
            "you can ask it here:\nhttps://a.example/help\n",
        ),
        (
            MailSettings(contact="Acme support", contact_url="https://a.example/help"),
            "please contact: Acme support\nhttps://a.example/help\n",
        ),
    ],
)
@pytest.mark.parametrize("status", sorted(MAIL_STATUSES))
def test_each_says_whom_to_ask(status: Status, settings: MailSettings, said: str) -> None:
    assert said in rendered(status, settings=settings).text


def test_the_link_to_the_course_has_its_id_quoted() -> None:
    mail = rendered(settings=MailSettings(course_url="https://lms.example/c/{course_id}/?a=1&b=2"))
    address = "https://lms.example/c/course-v1%3Aacme%2Bmaths/"
    assert f"Go to the course:\n{address}?a=1&b=2\n" in mail.text
    assert f'href="{address}?a=1&amp;b=2"' in mail.html
    assert "Go to the course" not in rendered().text


def test_only_a_course_that_gives_credit_speaks_of_it() -> None:
    assert "You will not get credit for this exam." in rendered(Status.REJECTED).text
    for part in vars_of(rendered(Status.REJECTED, gives_credit=False)).values():
        assert "credit" not in part


def vars_of(mail: MailText) -> Mapping[str, str]:
    return {"subject": mail.subject, "text": mail.text, "html": mail.html}


# --- languages ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wanted", "tag", "subject"),
    [
        (None, "en", "Your proctored exam was submitted: Algebra"),
        ("en-GB", "en", "Your proctored exam was submitted: Algebra"),
        ("es", "es", "Se ha entregado su examen supervisado: Algebra"),
        ("ES-mx", "es", "Se ha entregado su examen supervisado: Algebra"),
        ("de", "en", "Your proctored exam was submitted: Algebra"),
        ("est", "en", "Your proctored exam was submitted: Algebra"),
    ],
)
def test_a_mail_is_in_the_language_that_is_nearest(wanted: str | None, tag: str, subject: str) -> None:
    mail = rendered(language=wanted)
    assert mail.subject == subject
    assert f'<html lang="{tag}" dir="ltr">' in mail.html


def test_arabic_is_written_from_right_to_left() -> None:
    mail = rendered(language="ar-EG", time_zone="Africa/Cairo")
    assert '<html lang="ar" dir="rtl">' in mail.html
    # names of another script keep their own direction
    assert mail.subject.endswith("\u2068Algebra\u2069")
    assert "1 يناير 2027، 01:30 (\u2068Africa/Cairo\u2069)" in mail.text


def test_an_arabic_name_keeps_its_direction_in_an_english_mail() -> None:
    assert rendered(exam_name="الجبر (1)").subject.endswith("\u2068الجبر (1)\u2069")


def test_a_name_cannot_turn_around_what_follows_it() -> None:
    mail = rendered(learner_name="Ada\u202e", exam_name="\u2066Algebra")
    for part in vars_of(mail).values():
        assert not set("\u202e\u2066") & set(part)


# --- templates of one's own -----------------------------------------------------------------------------------


def folder_with(root: Path, files: Mapping[str, str]) -> Path:
    for name, content in files.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
    return root


def test_a_provider_may_have_templates_of_its_own(tmp_path: Path) -> None:
    # Given a template for everybody, and two for one provider
    templates = MailTemplates(
        folder_with(
            tmp_path,
            {
                "default/verified.jinja": "{% extends layout %}{% block title %}All is well{% endblock %}",
                ".git/config": "",
                "default/layout.txt": "Everybody: {% block title %}{% endblock %}",
                "default/layout.html": "<p>Everybody: {% block title %}{% endblock %}",
                "providers/acme/layout.txt": "{{ provider }}: {% block title %}{% endblock %}",
                "providers/acme/verified.jinja": (
                    "{% extends layout %}{% block title %}"
                    "{% trans %}Your proctored exam was verified{% endtrans %} by Acme{% endblock %}"
                ),
            },
        )
    )

    def text(status: Status, provider: str | None, language: str | None = None) -> str:
        return templates.render(replace(FACTS, status=status, provider=provider, language=language)).text

    # Then each mail has the nearest one
    assert text(Status.VERIFIED, None) == "Everybody: All is well"
    assert text(Status.VERIFIED, "unheard of") == "Everybody: All is well"
    assert text(Status.VERIFIED, "../default") == "Everybody: All is well"
    assert text(Status.VERIFIED, "acme") == "acme: Your proctored exam was verified by Acme"
    assert text(Status.SUBMITTED, "acme") == "acme: Your proctored exam was submitted"
    # and texts that ours have, too, are translated
    assert text(Status.VERIFIED, "acme", "es") == "acme: Se ha verificado su examen supervisado by Acme"


@pytest.mark.parametrize(
    ("files", "problem"),
    [
        (
            {"submitted.jinja": ""},
            "submitted.jinja: is not looked at; templates are in default and providers/NAME",
        ),
        (
            {"default/verified.jinja": "{% if %}"},
            r"verified.jinja: Expected an expression, .* \(verified.jinja, line 1\) \(language en\)",
        ),
        (
            {"default/verified.jinja": "{% extends layout %}{% block title %}Passed{% endblock %}"},
            r"default: verified.jinja: Required block 'news' not found",
        ),
        ({"providers/acme/layout.txt": "{{ exam }}"}, r"acme: rejected.jinja: 'exam' is undefined"),
        ({"providers/acme/layout.html": "{{ 1 // 0 }}"}, r"acme: rejected.jinja: ZeroDivisionError: "),
        ({"default/verified.jinja": "{% include 'x' %}"}, "default: verified.jinja: 'x' not found"),
        # what is used only where a policy tells it is tried, too
        ({"default/ask.jinja": "{% if contact %}{{ nobody }}{% endif %}"}, "'nobody' is undefined"),
        ({"default/locale/de/LC_MESSAGES/mail.mo": "x"}, r"the catalogue .*/mail.mo cannot be read \(\w+\)"),
    ],
)
def test_a_template_that_cannot_be_used_is_refused_at_the_start(
    tmp_path: Path, files: Mapping[str, str], problem: str
) -> None:
    with pytest.raises(ConfigurationError, match=problem) as caught:
        MailTemplates(folder_with(tmp_path, files))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("translation", "charset", "problem"),
    [
        # a translation is used in its language only
        ("Hallo %(name)s,", "charset=utf-8", r"rejected.jinja: KeyError: 'name' \(language de\)"),
        ("Hallo 100%,", "charset=utf-8", r"rejected.jinja: ValueError: .* \(language de\)"),
        ("Hallo,", "charset=utf-9", r"mail.mo cannot be read \(LookupError\)"),
        ("Hallo,", "charset utf-8", r"mail.mo cannot be read \(IndexError\)"),
    ],
)
def test_a_translation_that_cannot_be_used_is_refused_at_the_start(
    tmp_path: Path, translation: str, charset: str, problem: str
) -> None:
    catalogue, compiled = Catalog("de"), BytesIO()
    catalogue.add("Hello %(learner_name)s,", translation)
    write_mo(compiled, catalogue)
    file = tmp_path / "default/locale/de/LC_MESSAGES/mail.mo"
    file.parent.mkdir(parents=True)
    file.write_bytes(compiled.getvalue().replace(b"charset=utf-8", charset.encode()))
    with pytest.raises(ConfigurationError, match=problem):
        MailTemplates(tmp_path)


def test_a_folder_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigurationError, match=r"INVIGILATOR_TEMPLATES_DIR .*: cannot be read: No such file"
    ):
        MailTemplates(tmp_path / "nowhere")


@pytest.mark.parametrize("status", sorted(MAIL_STATUSES))
def test_the_sample_shows_everything_that_a_policy_may_tell(status: Status) -> None:
    facts = sample(status)
    text = TEMPLATES.render(facts).text
    settings = facts.settings
    assert settings.contact in text if settings.contact else False
    assert settings.contact_url in text if settings.contact_url else False
    assert "https://lms.example/courses/course-v1%3Aacme%2Bphys" in text
