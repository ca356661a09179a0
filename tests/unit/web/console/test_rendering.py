"""Parts of pages: the cells of a table, and a filter in words."""

from typing import Any

import pytest
from markupsafe import Markup

from invigilator.web.console.rendering import ENVIRONMENT, labelled

CAUSE = "5f0c2a9e7d315f0c2a9e7d315f0c2a9e"


def test_each_cell_says_its_column_in_each_row() -> None:
    table = Markup(
        '<thead><tr><th scope="col">A &amp; B</th><th scope="col" class="number"><span>C</span></th></tr></thead>'
        '<tbody>\n<tr><th scope="row">1</th><td class="number">2</td></tr>'
        '\n<tr><td colspan="2">no</td></tr></tbody>'
    )
    assert labelled(table).partition("<tbody>")[2] == (
        '\n<tr><th data-label="A &amp; B" scope="row">1</th><td data-label="C" class="number">2</td></tr>\n'
        '<tr><td data-label="A &amp; B" colspan="2">no</td></tr></tbody>'
    )


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        ({}, "any"),
        ({"states": ["failed"], "error": "403"}, "state failed, error contains 403"),
        ({"kinds": ["a", "b"]}, "kind a or b"),
        ({"effects": list("abcd")}, "4 effects"),
        ({"cause": CAUSE, "user_id": "<u>"}, "cause 5f0c2a9e, learner &lt;u&gt;"),
        ({"messages": {"source": "/lms"}}, "messages with sender /lms"),
        ({"messages": {}}, "messages with any"),
        ({"subscriber": "feed.lms", "after": 7}, "subscriber feed.lms, after position 7"),
        ({"since": "2027-01-31T03:00:00+00:00"}, "owed since 2027-01-31 03:00:00 UTC"),
    ],
)
def test_a_filter_is_told_in_words(wanted: dict[str, Any], words: str) -> None:
    module: Any = ENVIRONMENT.get_template("macros.html").module
    assert module.which(wanted).striptags() == Markup(words).striptags()


def test_a_cause_in_a_filter_is_a_link_to_its_page() -> None:
    module: Any = ENVIRONMENT.get_template("macros.html").module
    assert f'href="/console/cause?id={CAUSE}"' in module.which({"cause": CAUSE})
