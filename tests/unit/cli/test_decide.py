"""`invigilator decide`: one line of output for each line of input."""

import json
from pathlib import Path
from typing import Any

import pytest

from events.vocabulary import Outcome, Status
from invigilator.cli.decide import ANSWER, answer
from tests.commandline import CommandLine

DATA = Path(__file__).parents[2] / "data"
SAMPLE = DATA / "decisions-sample.jsonl"
EDX_SAMPLE = DATA / "edx-proctoring-6-sample.jsonl"
CASE = {
    "from_status": "created",
    "to_status": "started",
    "taking_as_proctored": True,
    "is_sample_attempt": False,
    "started_at": None,
}


def ask(**changes: Any) -> Any:
    return json.loads(answer(json.dumps({**CASE, **changes}).encode()))


def case_of(observed: dict[str, Any]) -> dict[str, Any]:
    policy: dict[str, Any] = {"preset": "platform" if observed["example"] == 2 else "provider"}
    if observed["allow_timed_out"] != "absent":
        policy["allow_timed_out_state"] = observed["allow_timed_out"]
    return {
        "from_status": observed["from_status"],
        "to_status": observed["to_status"],
        "taking_as_proctored": observed["taking_as_proctored"],
        "is_sample_attempt": observed["is_sample_attempt"],
        "started_at": "2026-02-01T09:00:00Z" if observed["started_at_preset"] else None,
        "cascade_effects": observed["cascade_effects"],
        "policy": policy,
    }


def test_every_observed_case_is_answered_as_observed(cli: CommandLine) -> None:
    # Given the observed cases
    observed = [json.loads(line) for line in SAMPLE.read_text().splitlines()]
    # When the command is asked
    lines = "".join(json.dumps(case_of(one)) + "\n" for one in observed)
    answers = cli("decide", stdin=lines.encode()).lines
    # Then it answers each, in order
    assert len(answers) == len(observed)
    for one, said in zip(observed, answers, strict=True):
        expect = one["expect"]
        assert tuple(said) == ANSWER
        assert said["outcome"] == expect["outcome"]
        assert said["status"] == expect["status"]
        assert ([said["credit"]] if said["credit"] else []) == expect["credit"]
        assert said["email"] == expect["email"]
        assert said["cascade"] or not expect["cascade"]
        assert said["set_started_at"] == (expect["started_at"] == "stamped")
        assert said["set_completed_at"] == (expect["completed_at"] == "stamped")
        assert said["clear_proctoring"] == (expect["external_id"] is None)


def test_every_decision_of_edx_proctoring_6_is_answered_as_observed() -> None:
    for line in EDX_SAMPLE.read_text().splitlines():
        observed = json.loads(line)
        expect = observed.pop("expect")
        started = observed.pop("started_at_preset")
        case = {
            **observed,
            "started_at": "2026-02-01T09:00:00Z" if started else None,
            "policy": {"preset": "edx-proctoring-6"},
        }
        said = json.loads(answer(json.dumps(case).encode()))
        assert {name: said[name] for name in expect} == expect


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_needs_no_settings_and_goes_on_after_a_bad_line(
    cli: CommandLine, monkeypatch: pytest.MonkeyPatch, options: list[str]
) -> None:
    # Given settings that are wrong
    monkeypatch.setenv("INVIGILATOR_DATABASE_URL", "mysql://nowhere")
    # When a bad line stands between good ones, and the last one has no newline
    good = json.dumps(CASE).encode()
    ran = cli("decide", *options, stdin=good + b"\n?\n\n" + good)
    # Then each is answered
    assert ran.status == 0
    assert ran.err == ""
    assert [next(iter(line)) for line in ran.lines] == ["outcome", "error", "error", "outcome"]


def test_what_may_be_left_out() -> None:
    said = ask(to_status="declined")
    assert (said["cascade"], said["clear_proctoring"]) == (True, True)
    del_started = {name: value for name, value in CASE.items() if name != "started_at"}
    assert json.loads(answer(json.dumps(del_started).encode()))["set_started_at"] is True
    assert ask(to_status="declined", cascade_effects=False)["cascade"] is False


@pytest.mark.parametrize("to_status", ["", None, "verifed", "Started", "x" * 5000, "\x00", "\ud800"])
def test_an_unknown_status_is_rejected_and_the_status_stays(to_status: str | None) -> None:
    said = ask(to_status=to_status)
    assert (said["outcome"], said["code"], said["status"]) == (Outcome.REJECTED, "unknown_status", "created")


def test_outcomes_that_change_nothing_keep_the_status() -> None:
    assert ask(to_status="created")["outcome"] == Outcome.UNCHANGED
    illegal = ask(from_status="verified", to_status="created")
    assert (illegal["code"], illegal["status"]) == ("illegal_transition", Status.VERIFIED)
    late = ask(from_status="verified", to_status="timed_out", policy={"protect_verdicts": True})
    assert (late["outcome"], late["code"], late["status"]) == ("ignored", "late_timeout", "verified")
    again = ask(from_status="verified", to_status="submitted", policy={"protect_verdicts": True})
    assert (again["outcome"], again["code"], again["status"]) == ("ignored", "verdict_protected", "verified")


def test_the_kind_of_the_exam() -> None:
    declined = {"to_status": "declined", "policy": {"cascade_from_practice": False}}
    assert ask(**declined)["cascade"] is True
    assert ask(**declined, is_practice_exam=False)["cascade"] is True
    assert ask(**declined, is_practice_exam=True)["cascade"] is False
    assert ask(to_status="declined", is_practice_exam=True)["cascade"] is True


def test_the_statuses_in_which_the_attempt_must_be() -> None:
    assert ask(from_statuses=None) == ask(from_statuses=["created", "started"]) == ask()
    for other in ([], ["started"]):
        said = ask(from_statuses=other)
        assert (said["outcome"], said["code"], said["status"]) == (
            "ignored",
            "precondition_failed",
            "created",
        )
    # They are checked before the status that is asked for.
    assert ask(to_status="verifed", from_statuses=["started"])["code"] == "precondition_failed"
    assert ask(to_status="verifed", from_statuses=["created"])["code"] == "unknown_status"


def test_settings_that_decide_nothing_are_taken_and_checked() -> None:
    assert ask(policy={"review_days": 5}) == ask()
    assert ask(policy={"review_days": 0})["error"].startswith("policy: review_days: must be a whole number")


@pytest.mark.parametrize(
    "time",
    ["2026-02-01T09:00:00Z", "2026-02-01t09:00:00.123456789+05:30", "2016-12-31T23:59:60z"],
)
def test_a_time_counts_as_started(time: str) -> None:
    assert ask(started_at=time)["set_started_at"] is False


def test_the_preset_names_what_the_others_override() -> None:
    platform = {"preset": "platform"}
    assert ask(to_status="timed_out", policy=platform)["status"] == "submitted"
    assert (
        ask(to_status="timed_out", policy={**platform, "allow_timed_out_state": True})["status"]
        == "timed_out"
    )
    assert ask(to_status="timed_out")["status"] == "timed_out"
    assert ask(to_status="created", policy=platform)["outcome"] == "applied"
    assert ask(to_status="submitted", policy={"credit_on": [], "email_on": []})["credit"] is None


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"from_status": "verifed"}, "from_status: must be one of eligible, created"),
        ({"from_status": None}, "from_status: must be"),
        ({"from_status": ["created"]}, "from_status: must be"),
        ({"to_status": 5}, "to_status: must be a string or null"),
        ({"to_status": ["started"]}, "to_status: must be"),
        ({"taking_as_proctored": 1}, "taking_as_proctored: must be true or false"),
        ({"is_sample_attempt": None}, "is_sample_attempt: must be true or false"),
        ({"is_practice_exam": 1}, "is_practice_exam: must be true or false"),
        ({"cascade_effects": "no"}, "cascade_effects: must be true or false"),
        ({"from_statuses": "created"}, "from_statuses: must be a list of statuses or null"),
        ({"from_statuses": ["created", "verifed"]}, "from_statuses: each must be one of eligible, created"),
        ({"from_statuses": [None]}, "from_statuses: each must be"),
        ({"from_statuses": [["created"]]}, "from_statuses: each must be"),
        ({"started_at": "yesterday"}, "started_at: must be a time such as"),
        ({"started_at": "2026-02-30T09:00:00Z"}, "started_at: must be"),
        ({"started_at": "2026-02-01T09:00:00"}, "started_at: must be"),
        ({"started_at": 1770000000}, "started_at: must be"),
        ({"policy": None}, "policy: must be an object"),
        ({"policy": {"preset": "acme"}}, "policy: preset: must be one of provider, platform"),
        ({"policy": {"preset": []}}, "policy: preset: must be"),
        ({"policy": {"email_on": ["started"]}}, "policy: email_on: must be a list of statuses out of"),
        ({"policy": {"colour": 1}}, "policy: colour: is no setting"),
        ({"exam_id": "7"}, "exam_id: is not a known key"),
        ({"k" * 5000: 1}, "kkkkk"),
    ],
)
def test_a_line_that_is_no_such_case(changes: dict[str, Any], error: str) -> None:
    said = ask(**changes)
    assert list(said) == ["error"]
    assert said["error"].startswith(error)
    assert len(said["error"]) <= 300


@pytest.mark.parametrize("missing", ["from_status", "to_status", "taking_as_proctored", "is_sample_attempt"])
def test_what_may_not_be_left_out(missing: str) -> None:
    case = {name: value for name, value in CASE.items() if name != missing}
    assert json.loads(answer(json.dumps(case).encode()))["error"].startswith(missing)


@pytest.mark.parametrize(
    ("line", "error"),
    [
        (b"", "the line is empty"),
        (b" \r\n", "the line is empty"),
        (b"\xff\xfe", "not UTF-8 at byte 0"),
        (b"\xef\xbb\xbf{}", "not JSON"),
        (b"{", "not JSON: "),
        (b"[" * 200_000, "not JSON: nested too deeply"),
        (b'{"policy": ' + b'{"a": ' * 200_000, "not JSON: nested too deeply"),
        (b'{"started_at": NaN}', "not JSON: NaN is no number"),
        (b'{"started_at": ' + b"9" * 5000 + b"}", "not JSON: "),
        (b'{"started_at": 1e999}', "from_status: "),
        (b"[]", "must be a JSON object"),
        (b"null", "must be a JSON object"),
        (b"{}{}", "not JSON: Extra data"),
        (b'{"from_\x00": 1}', "not JSON: "),
    ],
)
def test_a_line_that_is_nothing_of_the_kind(line: bytes, error: str) -> None:
    said = json.loads(answer(line))
    assert list(said) == ["error"]
    assert said["error"].startswith(error)
    assert "\n" not in answer(line)


def test_a_policy_nested_just_below_the_limit_of_reading() -> None:
    nested = b'{"cascade_on": ' + b"[" * 900 + b"]" * 900 + b"}"
    line = json.dumps(CASE).encode()[:-1] + b', "policy": ' + nested + b"}"
    assert list(json.loads(answer(line))) == ["error"]
