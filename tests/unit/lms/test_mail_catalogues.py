"""The catalogues: complete, compiled, and with dates as the language writes them. Babel is the judge."""

import re
import subprocess
import sys
from dataclasses import replace
from datetime import date
from functools import cache
from io import BytesIO
from pathlib import Path

import pytest
from babel.dates import format_date
from babel.messages.catalog import Catalog
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po
from hypothesis import given
from hypothesis import strategies as st

from events.vocabulary import Status
from worker.lms.mail_language import OWN_CATALOGUES, Catalogues
from worker.lms.mail_templates import MailTemplates, sample
from worker.rules.policy import MAIL_STATUSES

ROOT = Path(__file__).parents[3]
TRANSLATED = sorted(file.parts[-3] for file in OWN_CATALOGUES.glob("*/LC_MESSAGES/mail.po"))
CATALOGUES = Catalogues([OWN_CATALOGUES])


@cache
def catalogue(tag: str) -> Catalog:
    return read_po(BytesIO((OWN_CATALOGUES / tag / "LC_MESSAGES/mail.po").read_bytes()), locale=tag)


def translations(tag: str) -> dict[str, str]:
    """The texts of a catalogue, with their translations."""
    return {str(one.id): str(one.string) for one in catalogue(tag) if one.id and one.string and not one.fuzzy}


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """The texts of the templates, as `make catalogues` finds them."""
    file = tmp_path_factory.mktemp("texts") / "mail.pot"
    options = ["--mapping", "pyproject.toml", "--keywords", "translated", "--output", str(file)]
    subprocess.run(
        [sys.executable, "-m", "babel.messages.frontend", "--quiet", "extract", *options, "."],
        cwd=ROOT,
        check=True,
    )
    return {str(message.id) for message in read_po(BytesIO(file.read_bytes())) if message.id}


def test_there_are_the_first_three_languages() -> None:
    assert {"ar", "es"} <= set(TRANSLATED)


@pytest.mark.parametrize("tag", TRANSLATED)
def test_every_text_is_translated(tag: str, texts: set[str]) -> None:
    assert translations(tag).keys() == texts


@pytest.mark.parametrize("tag", TRANSLATED)
def test_a_translation_has_the_places_of_its_text(tag: str) -> None:
    for text, translation in translations(tag).items():
        assert sorted(places(translation)) == sorted(places(text)), text


def places(text: str) -> list[str]:
    return re.findall(r"%\(\w+\)s|%", text)


@pytest.mark.parametrize("tag", TRANSLATED)
def test_a_translation_is_safe_in_html(tag: str) -> None:
    # The templates take it as it is.
    assert not [one for one in translations(tag).values() if set("<>&") & set(one)]


@pytest.mark.parametrize("tag", TRANSLATED)
def test_the_compiled_catalogue_is_that_of_its_texts(tag: str) -> None:
    compiled = BytesIO()
    write_mo(compiled, catalogue(tag))
    assert (OWN_CATALOGUES / tag / "LC_MESSAGES/mail.mo").read_bytes() == compiled.getvalue()


@pytest.mark.parametrize(("tag", "locale"), [("en", "en_GB"), *[(tag, tag) for tag in TRANSLATED]])
@given(day=st.dates(date(2000, 1, 1), date(2100, 1, 1)))
def test_dates_are_written_as_the_language_does(tag: str, locale: str, day: date) -> None:
    assert CATALOGUES.language(tag).date(day) == format_date(day, "long", locale)


@pytest.mark.parametrize("tag", TRANSLATED)
def test_no_english_is_left_in_a_mail(tag: str) -> None:
    # Given the words of the mails in English
    english = {word for text in translations(tag) for word in words(text)}
    for status in sorted(MAIL_STATUSES):
        # When one is written in another language, and the names are taken out
        text = rendered(status, tag)
        # Then it has none of them
        assert not english & words(text), status


def words(text: str) -> set[str]:
    return set(re.findall(r"[a-z]{4,}", text.lower()))


def rendered(status: Status, tag: str) -> str:
    facts = replace(
        sample(status), learner_name="1", exam_name="2", course_name="3", language=tag, time_zone="UTC"
    )
    text = MailTemplates().render(facts).text
    return re.sub(r"https?://\S+|Acme support", "", text)
