"""The file of subscriptions: what it may say, and the one line that says what is wrong."""

from pathlib import Path

import pytest
from celery import Celery
from kombu.transport.redis import Channel

from events.sharding import queue_name
from worker import extras
from worker.effects_wiring import check_settings
from worker.errors import ConfigurationError
from worker.kinds import QUEUES
from worker.settings import Settings
from worker.subscriptions import load_subscriptions

FILE = """
[api]

[feed.lms]
name = "invigilator.events"
types = ["exam.attempt.*", "exam.command.not-applied.v1"]
max_len = 500

[feed.all]
name = "everything"

[openedx.lms]
redis = "rediss://bus:hush@redis.example.org/2"
topic = "prod-learning-exam-attempt-lifecycle"
"""

CELERY = Celery(set_as_current=False)
MAILBOX = CELERY.control.mailbox
CELERYS = (
    CELERY.conf.task_default_queue,
    CELERY.conf.event_exchange,
    MAILBOX.exchange.name,
    MAILBOX.reply_exchange.name,
    Channel.unacked_key,
    Channel.unacked_index_key,
    Channel.unacked_mutex_key,
    Channel.keyprefix_queue % "celery",
    *QUEUES.values(),
    queue_name(0),
)
"""What Celery, kombu and we have in a broker."""

BUS = 'redis = "redis://h"\ntopic = "t"\n'


SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
PRIVATE = (
    "10.0.0.1",
    "169.254.169.254",
    "0.0.0.0",
    "0",
    "0xa.1",
    "167772161",
    "[::]",
    "[fe80::1]",
    "[::ffff:10.0.0.1]",
)


def webhook(url: str, more: str = "", *, secret: str = SECRET) -> str:
    """The table of a webhook."""
    return f"[webhook.acme]\nurl = '{url}'\nsecrets = ['{secret}']\n{more}\n"


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
        "openedx.lms": {"topic": "prod-learning-exam-attempt-lifecycle", "max_len": 10_000},
    }
    assert subscriptions.without_cursor() == ["api"]
    assert list(subscriptions.published()) == ["feed.lms", "feed.all", "openedx.lms"]
    lms, everything = subscriptions.feed.values()
    wanted = ["exam.attempt.removed.v1", "exam.command.not-applied.v1"]
    assert [lms.wants(one) for one in (*wanted, "exam.effect.failed.v1")] == [True, True, False]
    assert everything.wants("exam.effect.failed.v1")
    assert "hush" not in repr(subscriptions)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[webhooks.acme]\n", "webhooks: is not allowed; `webhook` is meant"),
        ("[webhok.acme]\n", "webhok: is not allowed; `webhook` is meant"),
        ("[people]\n", 'people: is not allowed; see docs/contract.md, "Events out"'),
        (f"[webhook.acme]\nsecrets = ['{SECRET}']\n", "webhook.acme.url: "),
        ("[webhook.acme]\nurl = 'https://acme.example'\nsecrets = []\n", "webhook.acme.secrets: "),
        (f"[webhook.'a b']\nurl = 'https://acme.example'\nsecrets = ['{SECRET}']\n", "webhook.a b.[key]: "),
        (webhook("https://acme.example", secret="whsec_c2hvcnQ="), "webhook.acme.secrets: a secret must be"),
        (
            webhook("https://acme.example", secret=SECRET.removeprefix("whsec_")),
            "webhook.acme.secrets: a secret",
        ),
        (webhook("https://acme.example", secret="whsec_%%"), "webhook.acme.secrets: a secret must be"),
        (webhook("https://acme.example", "order = 'exam'"), "webhook.acme.order: "),
        (webhook("ftp://acme.example"), "webhook.acme.url: must be https://"),
        (webhook("https://me:s3cret@acme.example"), "webhook.acme.url: must be https://"),
        (webhook("https://acme.example/#there"), "webhook.acme.url: must be https://"),
        (webhook("https://"), "webhook.acme.url: must be https://"),
        (webhook("https://[::1"), "webhook.acme.url: must be https://"),
        (webhook("http://acme.example"), "webhook.acme: `url` must be https"),
        (webhook("http://10.0.0.1", "allow_private = true"), "webhook.acme: `url` must be https"),
        *(
            (webhook(f"https://{host}/"), "webhook.acme: `url` is a private or reserved address")
            for host in PRIVATE
        ),
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
        ("[openedx.a]\n", "openedx.a.redis: "),
        ('[openedx.a]\nredis = "redis://h"\n', "openedx.a.topic: "),
        (f'[openedx.a]\n{BUS}types = ["*"]\n', "openedx.a.types: is not allowed"),
        (f"[openedx.a]\n{BUS}max_len = 0\n", "openedx.a.max_len: "),
        (
            '[openedx.a]\nredis = "amqp://u:hush@h"\ntopic = "t"\n',
            "openedx.a.redis: must start with redis://, rediss://, sentinel:// or sentinels://",
        ),
        (
            '[openedx.a]\nredis = "redis://u:hush@h/x"\ntopic = "t"\n',
            "openedx.a.redis: must end with the number of a Redis database",
        ),
        (
            '[openedx.a]\nredis = "redis://h"\ntopic = "invigilator.effects.x"\n',
            "openedx.a.topic: must not begin with ",
        ),
        (f"[openedx.a]\n{BUS}[openedx.b]\n{BUS}", "openedx: two have one `topic` on one `redis`"),
        *(
            (
                f'[openedx.a]\nredis = "{one}"\ntopic = "t"\n[openedx.b]\nredis = "{other}"\ntopic = "t"\n',
                "openedx: two have one `topic` on one `redis`",
            )
            for one, other in (
                ("redis://h", "redis://H:6379/0"),
                ("redis://h", "rediss://u:hush@h"),
                ("sentinel://a:26379,b:26379", "sentinel://b:26379,a:26379/0"),
            )
        ),
        *((f'[feed.a]\nname = "{name}"\n', "feed.a.name: must not begin with ") for name in CELERYS),
        (f'[openedx.a]\n{BUS}[feed.lms]\nname = "t"\n', "openedx: a `topic` is the `name` of a feed"),
        ("[feed", "is no TOML: "),
        ("a = " + 2000 * "[", "is no TOML: "),
        ('[feed.a]\nname = "b.epoch"\n', "feed.a.name: must not end with .epoch"),
        ('[feed.a]\nname = "b"\nmax_len = 100000000000000000000000\n', "feed.a.max_len: "),
        ('[feed."a b"]\nname = "b"\n', "feed.a b.[key]: "),
        (webhook("https://acme.example:99999/"), "webhook.acme.url: must be https://host"),
        (webhook("https://127.0.0.1:99999/"), "webhook.acme.url: must be https://host"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    file = written(tmp_path, text)
    with pytest.raises(ConfigurationError) as caught:
        load_subscriptions(file)
    assert str(caught.value).startswith(f"subscriptions file {file}: {message}")
    assert "\n" not in str(caught.value)
    assert "hush" not in str(caught.value)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read: No such file"):
        load_subscriptions(tmp_path / "none.toml")


def test_what_an_open_edx_site_needs_besides_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extras, "missing", lambda _extra: ["fastavro"])
    file = written(tmp_path, f"[openedx.lms]\n{BUS}")
    with pytest.raises(ConfigurationError) as caught:
        check_settings(Settings(subscriptions_file=file))
    assert str(caught.value) == (
        f"[openedx.lms] of {file} needs the extra [openedx] (fastavro missing): pip install 'invigilator[openedx]'"
    )
    check_settings(Settings(subscriptions_file=written(tmp_path, "[api]\n")))


@pytest.mark.parametrize(
    "url",
    [
        "https://acme.example/hooks?token=s3cret",
        "https://203.0.114.7/hooks",
        "http://localhost:8000/hooks",
        "http://127.0.0.1:8000/hooks",
        "http://[::1]:8000/hooks",
        "http://2130706433:8000/hooks",
    ],
)
def test_where_a_webhook_may_go(tmp_path: Path, url: str) -> None:
    load_subscriptions(written(tmp_path, webhook(url)))


@pytest.mark.parametrize("host", PRIVATE)
def test_where_a_webhook_may_go_if_the_file_says_so(tmp_path: Path, host: str) -> None:
    load_subscriptions(written(tmp_path, webhook(f"https://{host}/", "allow_private = true")))


def test_no_secret_of_a_webhook_is_stored_or_shown(tmp_path: Path) -> None:
    url = "https://acme.example:8443/hooks/s3cret?token=s3cret"
    subscriptions = load_subscriptions(written(tmp_path, webhook(url, "types = ['exam.attempt.*']")))
    assert subscriptions.definitions() == {
        "webhook.acme": {
            "url": "https://acme.example:8443",
            "types": ["exam.attempt.*"],
            "order": "none",
            "allow_private": False,
        }
    }
    assert SECRET not in repr(subscriptions)
    assert "s3cret" not in repr(subscriptions)
    assert subscriptions.webhooks()["webhook.acme"].signing_secrets() == [SECRET]
