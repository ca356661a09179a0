"""The file of command keys: what each source may do, and errors that name the mistake and quote no key."""

import re
from pathlib import Path

import pytest
from pydantic import SecretStr

from events.commands import COMMAND_TYPES, Command, CommandData
from events.errors import InvalidMessageError
from events.signing import sign
from events.vocabulary import QuarantineCode
from tests import sample_commands as c
from worker.commands.trust import Trust, load_trust
from worker.effects_wiring import check_settings
from worker.errors import ConfigurationError
from worker.settings import Settings

SECRET = "never-printed-" + "s" * 32
OLDER = "never-printed-" + "ü" * 32
FILE = f"""
["/lms/acme"]
keys = ["{SECRET}", "{OLDER}"]
types = ["exam.attempt.create.v1", "exam.attempt.update-status.v1"]
to_status = ["started", "submitted"]

["/review"]
keys = ["never-printed-review-{"r" * 32}"]
types = ["*"]
to_status = ["*"]

["/catalogue"]
keys = ["never-printed-catalogue-{"c" * 32}"]
types = ["course.upsert.v1"]
"""
BODY = b"the body"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "keys.toml"
    file.write_text(FILE, encoding="utf-8")
    return file


@pytest.fixture
def trust(file: Path) -> Trust:
    trust = load_trust(file)
    assert trust is not None
    return trust


def refusal(trust: Trust, source: str, data: CommandData, signature: str | None) -> str | None:
    problem = None
    try:
        trust.check(Command(source, "1", data), BODY, signature)
    except InvalidMessageError as error:
        problem = str(error)
    for private in ("never-printed", source, signature or source):
        assert private not in (problem or "")
    return problem


def test_without_a_file_nothing_is_signed() -> None:
    assert load_trust(None) is None


@pytest.mark.parametrize("key", [SECRET, OLDER])
@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (c.create("7"), None),
        (c.update("7", "started"), None),
        (c.update("7", "verified"), "not_allowed: to_status: its source may not ask for this status"),
        (c.update("7", "verifed"), "not_allowed: to_status"),
        (c.update("7", "*"), "not_allowed: to_status"),
        (c.update("7", None), "not_allowed: to_status"),
        (
            c.remove("7"),
            "not_allowed: type: its source may not use exam.attempt.remove.v1; if it should, add",
        ),
        (c.course(), "not_allowed: type"),
    ],
)
def test_a_source_may_ask_for_what_the_file_says(
    trust: Trust, key: str, data: CommandData, problem: str | None
) -> None:
    found = refusal(trust, "/lms/acme", data, sign(BODY, key))
    assert found == problem if problem is None else (found or "").startswith(problem)


@pytest.mark.parametrize("data", [c.update("7", None), c.update("7", "verifed"), c.remove("7"), c.course()])
def test_a_star_is_everything(trust: Trust, data: CommandData) -> None:
    assert refusal(trust, "/review", data, sign(BODY, trust.grants["/review"].keys[0])) is None
    assert set(trust.grants["/review"].permit.types) == set(COMMAND_TYPES)


def test_one_that_may_not_update_needs_no_statuses(trust: Trust) -> None:
    signature = sign(BODY, trust.grants["/catalogue"].keys[0])
    assert refusal(trust, "/catalogue", c.course(), signature) is None
    assert refusal(trust, "/catalogue", c.update("7", "started"), signature)


@pytest.mark.parametrize(
    ("source", "signature", "problem"),
    [
        ("/lms/acme", None, "there is no invigilator-signature"),
        ("/lms/acme", "", "by no live key of its source"),
        ("/lms/acme", sign(b"another", SECRET), "by no live key of its source"),
        ("/lms/acme", sign(BODY, SECRET)[:-1], "by no live key of its source"),
        ("/lms/other", sign(BODY, SECRET), "source: is not in the file"),
        ("/review", sign(BODY, SECRET), "by no live key of its source"),
    ],
    ids=["none", "empty", "body", "truncated", "stranger", "impostor"],
)
def test_who_does_not_sign_is_refused_before_anything_else(
    trust: Trust, source: str, signature: str | None, problem: str
) -> None:
    # Given a command that its source would not be allowed either
    found = refusal(trust, source, c.remove("7"), signature)
    assert (found or "").startswith("bad_signature: ")
    assert problem in (found or "")


def test_the_first_key_signs_what_is_allowed(trust: Trust) -> None:
    assert trust.signing_key(Command("/lms/acme", "1", c.create("7"))) == SECRET
    with pytest.raises(InvalidMessageError) as caught:
        trust.signing_key(Command("/lms/acme", "1", c.remove("7")))
    assert caught.value.reason is QuarantineCode.NOT_ALLOWED
    with pytest.raises(InvalidMessageError) as caught:
        trust.signing_key(Command("/lms/other", "1", c.create("7")))
    assert caught.value.reason is QuarantineCode.BAD_SIGNATURE


def test_keys_are_not_printed(trust: Trust) -> None:
    assert "/lms/acme" in repr(trust)
    assert "never-printed" not in repr(trust)


KEYS = f'keys = ["{SECRET}"]'
REST = 'types = ["*"]\nto_status = ["*"]'


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("", "names no source"),
        (KEYS, r'\["keys"\] must be a table'),
        (f'["/a"]\n{KEYS}', r'\["/a"\] types: must be a list of strings'),
        (f'["/a"]\n{REST}', r'\["/a"\] keys: must be a list of strings, with at least one'),
        (f'["/a"]\nkeys = []\n{REST}', r'\["/a"\] keys: must be a list of strings, with at least one'),
        (f'["/a"]\nkeys = "{SECRET}"\n{REST}', "keys: must be a list of strings"),
        (f'["/a"]\nkeys = ["{SECRET}", 7]\n{REST}', "keys: must be a list of strings"),
        (f'["/a"]\nkeys = ["{SECRET}", ""]\n{REST}', "keys: each must have at least 32 characters"),
        (f'["/a"]\nkeys = ["never-printed-{"x" * 17}"]\n{REST}', "keys: each must have at least 32"),
        (f'["/a"]\nkeys = ["{SECRET}", "{SECRET}"]\n{REST}', "keys: has the same one twice"),
        (f'["/a"]\n{KEYS}\n{REST}\n["/b"]\n{KEYS}\n{REST}', r'\["/b"\] keys: one is also a key of \["/a"\]'),
        (f'["/a"]\n{KEYS}\n{REST}\nkey = 1', "key: is not allowed; a source has keys, types, to_status"),
        (f'["/a"]\n{KEYS}\ntypes = ["exam"]', r'types: must be \["\*"\], or a list out of course.upsert.v1'),
        (f'["/a"]\n{KEYS}\ntypes = ["*", "course.upsert.v1"]', r'types: must be \["\*"\]'),
        (f'["/a"]\n{KEYS}\ntypes = []', "types: must be a list of strings"),
        (f'["/a"]\n{KEYS}\ntypes = [["*"]]', "types: must be a list of strings"),
        (f'["/a"]\n{KEYS}\ntypes = ["*"]', "to_status: must be a list of strings"),
        (f'["/a"]\n{KEYS}\ntypes = ["*"]\nto_status = ["verifed"]', "to_status: must be .* out of eligible,"),
        (
            f'["/a"]\n{KEYS}\ntypes = ["*"]\nto_status = ["error", "error"]',
            "to_status: has the same one twice",
        ),
        (
            f'["/a"]\n{KEYS}\ntypes = ["course.upsert.v1"]\nto_status = ["*"]',
            "to_status: is only for a source",
        ),
        (f'[""]\n{KEYS}\n{REST}', "must have 1 to 255 characters"),
        (f'["{"x" * 256}"]\n{KEYS}\n{REST}', "must have 1 to 255 characters"),
        (f"[/a]\n{KEYS}", r"is no TOML \(at line 1, column 2\)"),
        (f"['/a']\nkeys = [{SECRET}]", r"is no TOML \(at line 2, column 9\)"),
        (f"['/a']\nkeys = ['{SECRET}", r"is no TOML \(at "),
        ("a = " + 2000 * "[", "is no TOML: it is nested too deeply"),
        ("\n\udcff", "line 2 is not UTF-8"),
    ],
)
def test_a_mistake_is_named_without_a_key(tmp_path: Path, content: str, problem: str) -> None:
    file = tmp_path / "keys.toml"
    file.write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(ConfigurationError, match=f"command keys file {file}: .*{problem}") as caught:
        load_trust(file)
    assert "never-printed" not in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.__suppress_context__


def test_a_missing_file_is_refused_before_anything_starts(tmp_path: Path) -> None:
    settings = Settings(_env_file=None, command_keys_file=tmp_path / "nowhere", lms_token=SecretStr("x"))
    with pytest.raises(ConfigurationError, match="nowhere: cannot be read: No such file"):
        check_settings(settings)


def test_the_documented_file_is_right(tmp_path: Path) -> None:
    documentation = (Path(__file__).parents[3] / "docs" / "security.md").read_text(encoding="utf-8")
    [example] = re.findall(r"```toml\n(.*?)```", documentation, re.DOTALL)
    file = tmp_path / "keys.toml"
    file.write_text(example, encoding="utf-8")
    trust = load_trust(file)
    assert trust is not None
    assert (
        refusal(trust, "/review", c.update("7", "verified"), sign(BODY, trust.grants["/review"].keys[0]))
        is None
    )
    assert refusal(
        trust, "/lms/acme", c.update("7", "verified"), sign(BODY, trust.grants["/lms/acme"].keys[1])
    )
