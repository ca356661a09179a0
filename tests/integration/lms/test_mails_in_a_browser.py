"""Each mail in each language, as a real browser lays it out on a phone and on a desk."""

from collections.abc import Mapping
from dataclasses import replace
from html import escape
from typing import Any

import pytest

from events.vocabulary import Status
from tests.browser import answer_of
from worker.lms.mail_templates import MailTemplates, sample
from worker.rules.policy import MAIL_STATUSES

LANGUAGES = ("en", "es", "ar")
WIDTHS = {"phone": 320, "desk": 1200}
LONG_WORD = "Donaudampfschifffahrtselektrizitaetenhauptbetriebswerkbauunterbeamtengesellschaft"

# Each mail is a frame of one page, because a browser takes a second to start.
MEASURE = """
const measured = {};
for (const frame of document.querySelectorAll('iframe')) {
    const page = frame.contentDocument;
    const title = page.createRange();
    title.selectNodeContents(page.querySelector('h1'));
    const block = page.querySelector('h1').getBoundingClientRect();
    const text = title.getBoundingClientRect();
    measured[frame.id] = {
        lang: page.documentElement.lang,
        direction: page.defaultView.getComputedStyle(page.querySelector('p')).direction,
        before: text.left - block.left,
        after: block.right - text.right,
        overflows: page.documentElement.scrollWidth > frame.clientWidth,
        text: page.body.innerText,
        loads: page.querySelectorAll('[src], [background], link, style, script').length,
        links: [...page.querySelectorAll('a')].map(link => link.href),
    };
}
document.getElementById('answer').textContent = JSON.stringify(measured);
"""


def mail(status: Status, language: str) -> str:
    facts = replace(sample(status), language=language, exam_name=f"{LONG_WORD} & <b>more</b>")
    return MailTemplates().render(facts).html


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Any]:
    """What the browser says of each mail."""
    frames = [
        f'<iframe id="{status} {language} {name}" width="{width}" height="800" '
        f'srcdoc="{escape(mail(status, language))}"></iframe>'
        for status in sorted(MAIL_STATUSES)
        for language in LANGUAGES
        for name, width in WIDTHS.items()
    ]
    page = tmp_path_factory.mktemp("browser") / "mails.html"
    page.write_text(
        f"<!DOCTYPE html><meta charset='utf-8'>{''.join(frames)}<pre id='answer'></pre>"
        f"<script>addEventListener('load', () => {{ {MEASURE} }})</script>"
    )
    answer: dict[str, Any] = answer_of(page)
    return answer


@pytest.mark.parametrize("screen", WIDTHS)
@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("status", sorted(MAIL_STATUSES))
def test_a_mail_is_laid_out_as_its_language_asks(
    measured: Mapping[str, Any], status: Status, language: str, screen: str
) -> None:
    seen = measured[f"{status} {language} {screen}"]
    # It is in its language, and begins where that language does
    assert seen["lang"] == language
    assert seen["direction"] == ("rtl" if language == "ar" else "ltr")
    start, rest = ("after", "before") if language == "ar" else ("before", "after")
    assert seen[start] < 1
    assert screen == "phone" or seen[rest] > 1  # on a phone, a heading may fill the line
    # It fits the screen, also with a word that is longer than a line
    assert not seen["overflows"]
    # A name is shown as it is, and is no markup
    assert f"{LONG_WORD} & <b>more</b>" in seen["text"]
    # It loads nothing from anywhere, because many mail clients would not
    assert seen["loads"] == 0
    assert seen["links"] == [
        "https://acme.example/help",
        "https://lms.example/courses/course-v1%3Aacme%2Bphys",
    ]
