"""The pages of the console on a database with something in it."""

import re
from html import unescape
from pathlib import Path

import pytest

from db import subscribers
from invigilator.acts.actor import Role
from invigilator.story.sentences import plain
from invigilator.web.console.pages import DOORS
from tests import sample_commands as c
from tests.commandline import CommandLine
from tests.integration.cli.conftest import Record
from tests.integration.cli.conftest import cli as cli
from tests.unit.web.console.visiting import behind_proxy
from worker.kinds import EffectKind

LINK = re.compile(r'href="(/console/[^"]*)"')


@pytest.fixture
def busy(record: Record) -> Record:
    """Learner 42 has submitted exam A; one of the effects has failed, and a message is in quarantine."""
    record.handle(
        c.received(c.create("A"), "create"),
        c.received(c.update("A", "submitted"), "submit"),
        c.received(c.update("A", "created"), "back"),
    )
    record.set_state(record.effect_ids(EffectKind.SET_CREDIT_STATUS)[0], "failed")
    record.execute(
        "INSERT INTO causes (id, kind, status, reason) VALUES ('c1', 'set_credit_status', 503, '503 from the LMS')"
    )
    record.execute(
        "UPDATE effects SET cause = 'c1', failed_at = now(), last_error = '503 from the LMS' WHERE state = 'failed'"
    )
    record.execute(
        "INSERT INTO totals VALUES ('effects', ARRAY['set_credit_status', 'failed'], gen_random_uuid(), 1)"
    )
    record.execute("INSERT INTO pauses (id, kind) VALUES (gen_random_uuid(), 'send_status_email')")
    record.execute(
        "INSERT INTO bulk_acts (id, action, filter, actor, expected, state)"
        " VALUES (gen_random_uuid(), 'retry', '{}', 'eve', 9, 'finished')"
    )
    with record.engine.begin() as connection:
        subscribers.store(
            connection, {"webhook.acme": {"url": "https://acme.example"}, "feed.lms": {"name": "events"}}
        )
    record.quarantine(b'{"email": "<script>alert(1)</script>"}', source="/lms", command_id="bad")
    return record


def test_every_link_leads_somewhere(busy: Record) -> None:
    client = behind_proxy(busy.engine, Role.ADMIN)
    seen: set[str] = set()
    waiting = ["/console/"]
    while waiting:
        place = waiting.pop()
        if place in seen:
            continue
        seen.add(place)
        answer = client.get(place)
        assert answer.status_code == 200, (place, answer.text)
        if "text/html" in answer.headers["content-type"]:
            waiting += [link.replace("&amp;", "&") for link in LINK.findall(answer.text)]
    pages = {place.split("?")[0] for place in seen}
    looked_at = {f"/console{door.path}" for door in DOORS if door.method == "GET"}
    assert looked_at - pages == {"/console/search", "/console/webhook/on", "/console/act"}


def test_what_comes_from_outside_is_escaped(busy: Record) -> None:
    page = behind_proxy(busy.engine, Role.VIEWER).get("/console/quarantined?id=1").text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page


def test_the_overview_says_what_is_wrong_in_one_sentence(busy: Record) -> None:
    page = behind_proxy(busy.engine, Role.VIEWER).get("/console/").text
    sentence = re.search(r'<p class="verdict broken">(.*?)</p>', page)
    assert sentence is not None
    assert "1 effect failed" in sentence[1]
    assert "1 message in quarantine" in sentence[1]


def open_circuit(record: Record, queue: str) -> None:
    record.execute(
        "INSERT INTO circuits (queue, failures, since, open_until, reason)"
        " VALUES (:queue, 5, now() - interval '1 h', now(), 'no answer')",
        queue=queue,
    )


def owe_two_credits(record: Record) -> None:
    for number in range(2):
        user_id = f"u{number}"
        record.handle(
            c.received(c.learner(user_id), f"l{number}"),
            c.received(c.create("A", user_id), f"c{number}"),
            c.received(c.update("A", "submitted", user_id), f"s{number}"),
        )


def test_an_open_circuit_is_named_first_with_what_waits_for_it(busy: Record) -> None:
    open_circuit(busy, "invigilator.effects.credit")
    owe_two_credits(busy)
    page = behind_proxy(busy.engine, Role.VIEWER).get("/console/").text
    sentence, _, rest = page.partition('class="verdict')[2].partition("</p>")
    circuit = sentence.index("the circuit of invigilator.effects.credit is open since")
    assert "(no answer; 2 effects wait)" in sentence
    assert circuit < sentence.index("1 effect failed")
    assert rest.index("Services that are not called") < rest.index("Why effects fail")
    assert (
        'href="/console/effects?kind=set_credit_status&amp;kind=remove_credit_status&amp;state=pending">2<'
        in rest
    )


@pytest.mark.parametrize(
    ("queue", "concerns"),
    [
        ("invigilator.effects.credit", True),
        ("invigilator.effects.email", False),
        ("webhook.acme", False),
    ],
)
def test_the_page_of_a_cause_shows_the_circuit_that_concerns_it(
    busy: Record, queue: str, concerns: bool
) -> None:
    open_circuit(busy, queue)
    page = behind_proxy(busy.engine, Role.VIEWER).get("/console/cause?id=c1").text
    assert (f"The circuit of <bdi>{queue}</bdi> is open since" in page) is concerns


def test_a_cause_is_one_row_that_begins_with_its_reason(busy: Record) -> None:
    owe_two_credits(busy)
    busy.execute(
        "UPDATE effects SET cause = 'c1', failed_at = now(), retrying_since = NULL"
        " WHERE kind = 'set_credit_status' AND state = 'pending'"
    )
    page = behind_proxy(busy.engine, Role.VIEWER).get("/console/causes").text
    [row] = re.findall(r"<tr>(.*?)</tr>", page.partition("<tbody>")[2])
    assert re.findall(r'data-label="([^"]*)"', row) == [
        "Reason",
        "Kind",
        "Failed",
        "Waiting",
        "Retried by hand, not yet tried",
        "Since",
        "Last",
        "Cause",
    ]
    assert re.sub("<[^>]*>", " ", row).split()[:4] == ["503", "from", "the", "LMS"]
    numbers = re.findall(r'<td data-label="[^"]*" class="number">(.*?)</td>', row)
    assert [re.sub("<[^>]*>", "", one) for one in numbers] == ["1", "0", "2"]


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("state=failed", "1 effect matches. The newest"),
        ("kind=set_credit_status&state=pending", "2 effects match. The newest"),
        ("", None),
        ("error=503", None),
    ],
)
def test_the_list_of_effects_says_how_many_match(busy: Record, query: str, says: str | None) -> None:
    owe_two_credits(busy)
    page = behind_proxy(busy.engine, Role.VIEWER).get(f"/console/effects?{query}").text
    assert (says in page) if says else ("match" not in page.partition("<main")[2].partition("<table")[0])


def test_of_very_many_effects_it_says_that_there_are_more(
    busy: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("invigilator.web.console.pages.effects.COUNTED", 1)
    owe_two_credits(busy)
    page = behind_proxy(busy.engine, Role.VIEWER).get("/console/effects?state=pending").text
    assert "More than 1 effects match." in page


@pytest.mark.parametrize(
    ("query", "is_open"),
    [("", False), ("state=failed", False), ("exam_id=A", True), ("until=2027-01-01", True)],
)
def test_seldom_used_filters_are_folded_until_they_are_used(busy: Record, query: str, is_open: bool) -> None:
    page = behind_proxy(busy.engine, Role.VIEWER).get(f"/console/effects?{query}").text
    assert ('<details class="more" open>' in page) is is_open


def test_failures_are_drawn_by_answer_and_kind(busy: Record) -> None:
    busy.execute(
        "INSERT INTO tries (effect_id, number, started_at, finished_at, result, cause)"
        " SELECT id, 1, now(), now(), 'failed', 'c1' FROM effects WHERE state = 'failed'"
    )
    page = behind_proxy(busy.engine, Role.VIEWER).get("/console/").text
    assert re.search(r'class="answers-0"[^>]*/></svg> 503 set_credit_status</li>', page)
    # Of the other chart there is not a second count yet
    assert "The chart begins with the second count." in page


def test_an_id_is_found_whatever_it_names(busy: Record) -> None:
    client = behind_proxy(busy.engine, Role.VIEWER)
    effect_id = busy.effect_ids()[0]
    for text, place in {
        " 42 ": "/console/learner?user_id=42",
        "A": "/console/attempts?exam_id=A",
        c.COURSE: f"/console/attempts?course_id={c.COURSE}",
        str(effect_id): f"/console/effect?id={effect_id}",
        "submit": "/console/command?source=%2Ftests&id=submit",
    }.items():
        assert client.get("/console/search", params={"q": text}).headers["location"] == place
    assert "Nothing has the id" in client.get("/console/search?q=nonsense").text


def test_a_viewer_sees_no_button_that_would_be_refused(busy: Record) -> None:
    client = behind_proxy(busy.engine, Role.VIEWER)
    effect_id = busy.effect_ids(EffectKind.SET_CREDIT_STATUS)[0]
    for place in (
        "/",
        "/effects?state=failed",
        f"/effect?id={effect_id}",
        "/quarantine",
        "/webhook?name=acme",
    ):
        page = client.get(f"/console{place}").text
        assert not re.search(r"/console/(acts|pause|resume|quarantine/|webhook/|events)", page), place


def test_pages_follow_each_other_without_a_gap(record: Record) -> None:
    for number in range(60):
        record.quarantine(b"%d" % number)
    client = behind_proxy(record.engine, Role.VIEWER)
    first = client.get("/console/quarantine").text
    following = re.search(r'rel="next" href="([^"]*)"', first)
    assert following is not None
    second = client.get(following[1]).text
    shown = re.findall(r"/console/quarantined\?id=(\d+)", first + second)
    assert shown == [str(one) for one in record.quarantine_ids()]
    assert 'rel="next"' not in second


def test_a_learner_is_told_as_on_the_command_line(busy: Record, cli: CommandLine) -> None:
    # Given what the command line tells of a learner
    told = cli("learners", "show", "42").out
    sentences = re.findall(r"^    (?!\()(.+)$", told, re.MULTILINE)
    assert len(sentences) > 8
    # When the page of the learner is loaded
    page = behind_proxy(busy.engine, Role.VIEWER).get("/console/learner?user_id=42").text
    seen = re.sub(r"\s+", " ", plain(unescape(re.sub(r"<[^>]+>", "", page))))
    # Then it has the same sentences, the name, and a link to what each of them tells
    for sentence in sentences:
        assert sentence in seen
    assert "Ada Lovelace" in seen
    assert page.count("/console/effect?id=") >= len(busy.effect_ids())
    assert "/console/command?source=%2Ftests&amp;id=submit" in page


def test_the_page_to_print_is_that_of_the_command_line(
    busy: Record, cli: CommandLine, tmp_path: Path
) -> None:
    cli("learners", "show", "42", "--html", tmp_path / "page.html")
    answer = behind_proxy(busy.engine, Role.VIEWER).get("/console/learner/printed?user_id=42")
    written = re.compile(r"<dt>Written</dt>.*")
    file = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert written.sub("", answer.text) == written.sub("", file)
    # A browser runs nothing in it, and knows no style but the page's own
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert policy in unescape(answer.text)
    assert answer.headers["x-frame-options"] == "DENY"


def test_nobody_has_a_page_and_somebody_of_whom_nothing_is_kept_has(record: Record) -> None:
    client = behind_proxy(record.engine, Role.VIEWER)
    for page in ("learner", "learner/printed"):
        assert client.get(f"/console/{page}?user_id=nobody").status_code == 404
        assert client.get(f"/console/{page}").status_code == 400
    record.execute("DELETE FROM inbox")
    for page in ("learner", "learner/printed"):
        answer = client.get(f"/console/{page}?user_id=42")
        assert (answer.status_code, "Nothing is recorded." in answer.text) == (200, True)
