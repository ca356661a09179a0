"""`invigilator learners show`."""

import json
from pathlib import Path

import pytest

from tests import sample_commands as c
from tests.commandline import CommandLine
from tests.integration.cli.conftest import Record
from tests.integration.cli.test_printing import Run, on_a_terminal
from tests.integration.cli.test_printing import run as run
from worker.kinds import EffectKind


@pytest.fixture
def story(record: Record) -> Record:
    """A learner with an attempt that was submitted, one that was removed, and what went wrong."""
    record.handle(
        c.received(c.create("A", taking_as_proctored=True, attempt_code="code-A"), "create-A"),
        c.received(c.update("A", "submitted"), "submit"),
        c.received(c.update("A", "started"), "back"),
        c.received(c.create("B", attempt_code="code-B"), "create-B"),
        c.received(c.remove("B", attempt_code="code-B"), "remove"),
    )
    record.quarantine(b"{", source="/tests", command_id="nonsense", user_id="42")
    [mail] = record.effect_ids(EffectKind.SEND_STATUS_EMAIL)
    record.execute(
        "INSERT INTO tries (effect_id, number, started_at, finished_at, result)"
        " VALUES (:id, 1, now(), now(), 'done')",
        id=mail,
    )
    record.set_state(mail, "done")
    return record


@pytest.mark.usefixtures("story")
def test_the_whole_story_as_text(cli: CommandLine) -> None:
    ran = cli("learners", "show", "42")
    assert (ran.status, ran.err) == (0, "")
    for told in (
        "name: Ada Lovelace",
        "Result of the attempt code-A at Exam A:",
        "The learner submitted the exam. There is no verdict. It has been so since ",
        " Of its follow-ups 1 is still owed.",
        "The status submitted was asked for at exam A (Exam A). It was done.",
        "The status of the attempt at exam A (Exam A) went from created to submitted.",
        "It was refused (illegal_transition): ",
        "(command back of /tests)",
        "It named the attempt code-B. It was done.",
        "An attempt at exam B (Exam B) was removed.",
        "A follow-up came to be owed: to send a mail about submitted. It is done now.",
        "Try 1 to send a mail about submitted: done.",
        "The mail server accepted the mail about submitted at exam A (Exam A).",
        "It was put into quarantine (not_json): is no JSON.",
    ):
        assert told in ran.out
    assert "@" not in ran.out


def test_json_is_the_timeline_of_the_api_whole(
    cli: CommandLine, story: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("db.streaming.STREAMED_ROWS", 3)
    document = cli("learners", "show", "42", "--json").json
    assert document["next"] is None
    moments = [entry["recorded_at"] for entry in document["entries"]]
    assert moments == sorted(moments)
    words = [entry["what"] for entry in document["entries"]]
    assert set(words) == {"command", "quarantined", "attempt", "transition", "effect", "try", "mail"}
    assert words.count("command") == 6
    assert "Ada" not in json.dumps(document)


def test_nobody_of_this_id(cli: CommandLine, record: Record, tmp_path: Path) -> None:
    ran = cli("learners", "show", "nobody", "--json")
    assert (ran.status, ran.json) == (1, {"entries": [], "next": None})
    assert ran.err.startswith("invigilator: nobody of this id is known")
    ran = cli("learners", "show", "nobody", "--html", tmp_path / "page.html")
    assert (ran.status, ran.out) == (1, "")
    assert not (tmp_path / "page.html").exists()


def test_one_of_whom_only_refused_commands_tell_is_somebody(cli: CommandLine, record: Record) -> None:
    record.handle(c.received(c.update("A", "started", "stranger")))
    ran = cli("learners", "show", "stranger")
    assert ran.status == 0
    assert "It was refused" in ran.out


@pytest.mark.usefixtures("record")
def test_one_of_whom_nothing_is_kept_is_somebody(cli: CommandLine, record: Record) -> None:
    record.execute("DELETE FROM inbox")
    ran = cli("learners", "show", "42", "--json")
    assert (ran.status, ran.json["entries"]) == (0, [])


@pytest.mark.usefixtures("story")
def test_on_a_terminal_lines_are_wrapped_and_no_word_is_lost(run: Run) -> None:
    piped = run("learners", "show", "42").stdout
    seen = on_a_terminal(run, "learners", "show", "42")
    whole, wrapped = (text[text.index(" UTC  ") :] for text in (piped, seen))
    assert max(map(len, whole.splitlines())) > 80
    assert max(map(len, wrapped.splitlines())) <= 80
    assert whole.split() == wrapped.split()


@pytest.mark.usefixtures("story")
def test_the_page_is_one_file_that_loads_and_runs_nothing(cli: CommandLine, tmp_path: Path) -> None:
    ran = cli("learners", "show", "42", "--html", tmp_path / "page.html")
    assert (ran.status, ran.out, ran.err) == (0, "", "")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "Ada Lovelace" in page
    assert "default-src &#39;none&#39;" in page or "default-src 'none'" in page
    for foreign in ("<script", "src=", "href=", "url(", "@import"):
        assert foreign not in page


def test_a_page_that_cannot_be_written(cli: CommandLine, story: Record, tmp_path: Path) -> None:
    ran = cli("learners", "show", "42", "--html", tmp_path / "no such folder" / "page.html")
    assert ran.status == 1
    assert ran.err.count("\n") == 1
    assert cli("learners", "show", "42", "--html", "x", "--json").status == 2


def test_an_erasure_is_told_in_numbers_and_stands_in_the_story(cli: CommandLine, story: Record) -> None:
    ran = cli("learners", "erase", "42", "--reason", "request 7", "--json")
    assert (ran.status, ran.err) == (0, "")
    assert ran.json == {"names": True, "mails": 0, "messages": 1, "reasons": 0, "texts": 0}
    told = cli("learners", "show", "42").out
    assert "Ada" not in told
    assert "username: erased-42" in told
    assert "erase. Reason: request 7" in told
    assert cli("learners", "erase", "42", "--reason", "again", "--json").json["names"] is False


def test_an_erasure_needs_somebody_and_a_reason_without_names(cli: CommandLine, story: Record) -> None:
    ran = cli("learners", "erase", "nobody", "--reason", "request 7")
    assert (ran.status, ran.err) == (1, "invigilator: nobody of this id is known\n")
    ran = cli("learners", "erase", "42", "--reason", "Ada Lovelace asked")
    assert (ran.status, ran.err) == (
        1,
        "invigilator: the reason names the learner, and would stay: leave that out\n",
    )
    assert cli("learners", "erase", "42").status == 2
    assert "Ada Lovelace" in cli("learners", "show", "42").out
