"""The story as a real browser lays it out and prints it."""

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from html import escape
from pathlib import Path
from typing import Any

import pytest
from pypdf import PdfReader

from db.story import AttemptSummary, Heading
from db.timeline import Entry, Position
from invigilator.story import page
from invigilator.story.sentences import Teller
from tests.browser import answer_of, printed

NOW = datetime(2026, 3, 1, 9, 30, tzinfo=UTC)
NAME = "محمد بن موسى الخوارزمي"
EXAM = "الرياضيات 101 (نهائي)"
LONG_ID = "block-v1:" + "x" * 246
HOSTILE = "<script>alert(1)</script>\u202e"
USER = "42 \"';}</style>\\ يوسف"
PAPER = 680  # pixels between the margins of A4
WIDTHS = {"paper": PAPER, "phone": 320}

MEASURE = """
const measured = {};
for (const frame of document.querySelectorAll('iframe')) {
    const page = frame.contentDocument;
    const cut = [...page.querySelectorAll('td, dd, h1')].filter(cell => {
        const text = page.createRange();
        text.selectNodeContents(cell);
        return text.getBoundingClientRect().right > cell.getBoundingClientRect().right + 1;
    });
    measured[frame.id] = {
        overflows: page.documentElement.scrollWidth > frame.clientWidth,
        cut: cut.map(cell => cell.textContent),
        name: page.querySelector('dd').textContent,
        exam: page.querySelector('tr.transition td:nth-child(3)').innerText,
        styled: frame.contentWindow.getComputedStyle(page.querySelector('dl')).display,
        scripts: page.querySelectorAll('script, [src], link').length,
    };
}
document.getElementById('answer').textContent = JSON.stringify(measured);
"""


def heading() -> Heading:
    attempt = AttemptSummary(
        "code-" + LONG_ID, LONG_ID, EXAM, "course-1", "submitted", NOW, NOW, None, NOW, 0, 0, 0
    )
    return Heading(USER, HOSTILE, NAME, None, [attempt], is_described=True)


def entries(number: int) -> Sequence[Entry]:
    """An entry a minute. Each third one is long."""
    return [
        Entry(
            Position(NOW + one * timedelta(minutes=1), str(one)),
            NOW,
            "transition",
            {
                "attempt_code": f"entry-{one}-" + ("" if one % 3 else LONG_ID),
                "exam_id": LONG_ID,
                "from_status": "created",
                "to_status": "submitted",
                "version": one,
                "source": "/lms",
                "command_id": f"{HOSTILE}{one}",
            },
        )
        for one in range(number)
    ]


def written(folder: Path, number: int) -> Path:
    file = folder / "story.html"
    with file.open("w", encoding="utf-8") as output:
        page.write(heading(), map(Teller({LONG_ID: EXAM}).tell, entries(number)), NOW, output)
    return file


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What the browser made of it, by width. On paper the print's own rules hold."""
    folder = tmp_path_factory.mktemp("measured")
    text = written(folder, 6).read_text(encoding="utf-8")
    # The policy allows the style as it was written only.
    on_paper = re.sub('<meta http-equiv="Content-Security-Policy"[^>]*>', "", text)
    texts = {"paper": on_paper.replace("@media print", "@media all"), "phone": text}
    frames = "".join(
        f'<iframe id="{name}" width="{WIDTHS[name]}" height="900" srcdoc="{escape(one)}"></iframe>'
        for name, one in texts.items()
    )
    whole = folder / "measured.html"
    whole.write_text(
        f'<!DOCTYPE html><meta charset="utf-8">{frames}<pre id="answer"></pre>'
        f"<script>window.onload = () => {{{MEASURE}}}</script>",
        encoding="utf-8",
    )
    return answer_of(whole)


@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_is_cut_off(measured: Any, width: str) -> None:
    assert not measured[width]["overflows"]
    assert measured[width]["cut"] == []


@pytest.mark.parametrize("width", WIDTHS)
def test_names_from_right_to_left_survive_and_turn_nothing_around(measured: Any, width: str) -> None:
    assert measured[width]["name"] == NAME
    exam = f"exam \u2068{LONG_ID}\u2069 (\u2068{EXAM}\u2069)"
    assert f"The status of the attempt at {exam} went from created to submitted." in measured[width]["exam"]


def test_the_policy_of_the_page_allows_its_style(measured: Any) -> None:
    assert measured["phone"]["styled"] == "grid"


def test_what_others_wrote_is_text(measured: Any) -> None:
    assert measured["phone"]["scripts"] == 0


def test_it_prints_on_pages_without_cutting_a_row(tmp_path: Path) -> None:
    # When a long story is printed
    pages = [one.extract_text() for one in PdfReader(printed(written(tmp_path, 150))).pages]
    # Then it takes several pages, which are numbered, name the learner, and repeat the heads of the columns
    assert len(pages) > 5
    for number, text in enumerate(pages, start=1):
        assert f"Page {number} of {len(pages)}" in text
        assert "Learner 42 \"';}</style>\\" in text
        assert "In the record" in text
    # And each entry is on one page, whole, and in order
    of_entry = [
        [number for number, text in enumerate(pages) if f"entry-{one}-" in text] for one in range(150)
    ]
    assert all(len(found) == 1 for found in of_entry)
    assert of_entry == sorted(of_entry)
