"""The file of subscriptions: what it may say, and the one line that says what is wrong."""

from pathlib import Path

import pytest

from worker.errors import ConfigurationError
from worker.subscriptions import load_subscriptions

FILE = """
[api]

[feed.lms]
name = "invigilator.events"
types = ["exam.attempt.*", "exam.command.not-applied.v1"]
max_len = 500

[feed.all]
name = "everything"
"""


def written(folder: Path, text: str) -> Path:
    file = folder / "subscriptions.toml"
    file.write_text(text, encoding="utf-8")
    return file


def test_without_a_file_nobody_subscribes() -> None:
    assert load_subscriptions(None).definitions() == {}


def test_what_the_file_says(tmp_path: Path) -> None:
    subscriptions = load_subscriptions(written(tmp_path, FILE))
    assert subscriptions.definitions() == {
        "api": {},
        "feed.lms": {
            "name": "invigilator.events",
            "types": ["exam.attempt.*", "exam.command.not-applied.v1"],
            "max_len": 500,
        },
        "feed.all": {"name": "everything", "types": ["*"], "max_len": 1_000_000},
    }
    assert subscriptions.without_cursor() == ["api"]
    lms, everything = subscriptions.feeds().values()
    wanted = ["exam.attempt.removed.v1", "exam.command.not-applied.v1"]
    assert [lms.wants(one) for one in (*wanted, "exam.effect.failed.v1")] == [True, True, False]
    assert everything.wants("exam.effect.failed.v1")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[webhooks.acme]\n", "webhooks: is not allowed"),
        ("[api]\nkeep = 1\n", "api.keep: is not allowed"),
        ("[feed]\nlms = 1\n", "feed.lms: "),
        ("[feed.lms]\n", "feed.lms.name: "),
        ('[feed.lms]\nname = ""\n', "feed.lms.name: "),
        ('[feed.lms]\nname = "a"\nurl = "x"\n', "feed.lms.url: is not allowed"),
        ('[feed.lms]\nname = "a b"\n', "feed.lms.name: "),
        ('[feed.lms]\nname = "invigilator.commands.0"\n', "feed.lms.name: must not begin with "),
        ('[feed.lms]\nname = "a"\ntypes = []\n', "feed.lms.types: "),
        ('[feed.lms]\nname = "a"\ntypes = ["exam.atempt.*"]\n', "feed.lms.types: each must fit one of exam."),
        ('[feed.lms]\nname = "a"\nmax_len = 0\n', "feed.lms.max_len: "),
        ('[feed.a]\nname = "x"\n[feed.b]\nname = "x"\n', "feed: two feeds have one `name`"),
        ("[feed", "is no TOML: "),
    ],
)
def test_what_is_wrong_is_said_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    file = written(tmp_path, text)
    with pytest.raises(ConfigurationError) as caught:
        load_subscriptions(file)
    assert str(caught.value).startswith(f"subscriptions file {file}: {message}")
    assert "\n" not in str(caught.value)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read: No such file"):
        load_subscriptions(tmp_path / "none.toml")
