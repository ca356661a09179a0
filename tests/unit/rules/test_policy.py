"""Policies: the accepted settings and the refused ones."""

from pathlib import Path
from typing import Any

import pytest

from events.vocabulary import Status
from worker.errors import ConfigurationError
from worker.policies import Policies, load_policies
from worker.rules.policy import (
    PRESETS,
    MailSettings,
    Policy,
    PolicyError,
    RepeatStatus,
    TimeOuts,
    policy_from,
)

PROVIDER, PLATFORM = PRESETS["provider"], PRESETS["platform"]


def test_the_presets_are_those_of_the_rules() -> None:
    assert (PROVIDER.allow_timed_out_state, PROVIDER.repeat_status) == (
        TimeOuts.FROM_CREATED,
        RepeatStatus.IGNORE,
    )
    assert (PLATFORM.allow_timed_out_state, PLATFORM.repeat_status) == (TimeOuts.NEVER, RepeatStatus.REAPPLY)
    for policy in PRESETS.values():
        assert policy.cascade_on == {Status.DECLINED, Status.REJECTED}
        assert policy.email_on == {Status.SUBMITTED, Status.VERIFIED, Status.REJECTED}
        assert len(policy.credit_on) == 6
        assert not policy.protect_verdicts


def test_every_setting_can_be_set() -> None:
    policy = policy_from(
        {
            "preset": "platform",
            "allow_timed_out_state": True,
            "repeat_status": "ignore",
            "cascade_on": ["error"],
            "credit_on": [],
            "email_on": ["verified"],
            "protect_verdicts": True,
            "review_days": 5,
            "contact": "Acme support",
            "contact_url": "https://acme.example/help?a=b",
            "course_url": "http://lms.example/{course_id}",
        },
        PROVIDER,
    )
    assert policy == Policy(
        TimeOuts.ALWAYS,
        RepeatStatus.IGNORE,
        frozenset({Status.ERROR}),
        frozenset(),
        frozenset({Status.VERIFIED}),
        True,
        mail=MailSettings(
            review_days=5,
            contact="Acme support",
            contact_url="https://acme.example/help?a=b",
            course_url="http://lms.example/{course_id}",
        ),
    )


def test_a_preset_takes_the_place_of_the_base() -> None:
    assert policy_from({"preset": "provider"}, PLATFORM) == PROVIDER
    assert policy_from({}, PLATFORM) == PLATFORM
    assert policy_from({"allow_timed_out_state": False}, PROVIDER).allow_timed_out_state is TimeOuts.NEVER
    assert policy_from({"allow_timed_out_state": "from_created"}, PLATFORM) == Policy(
        repeat_status=RepeatStatus.REAPPLY
    )


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("preset", "acme"),
        ("preset", []),
        ("allow_timed_out_state", "true"),
        ("allow_timed_out_state", 1),
        ("repeat_status", "again"),
        ("repeat_status", True),
        ("cascade_on", "declined"),
        ("cascade_on", ["verifed"]),
        ("cascade_on", [["declined"]]),
        ("credit_on", ["started"]),
        ("email_on", ["declined"]),
        ("protect_verdicts", "yes"),
        ("protect_verdict", True),
        ("review_days", 0),
        ("review_days", 366),
        ("review_days", 1.5),
        ("review_days", True),
        ("contact", ""),
        ("contact", " "),
        ("contact", "two\nlines"),
        ("contact", 7),
        ("contact_url", "acme.example"),
        ("contact_url", "javascript:alert(1)"),
        ("contact_url", "https://acme.example/ help"),
        ("contact_url", None),
        ("course_url", "https://lms.example/course"),
        ("course_url", "ftp://lms.example/{course_id}"),
        ("course_url", ["https://lms.example/{course_id}"]),
    ],
)
def test_what_is_not_allowed_is_refused_by_name(key: str, value: Any) -> None:
    with pytest.raises(PolicyError, match=f"^{key}: ") as caught:
        policy_from({key: value}, PROVIDER)
    assert caught.value.key == key


def test_a_file_of_policies(tmp_path: Path) -> None:
    file = tmp_path / "policies.toml"
    file.write_text(
        '[default]\npreset = "platform"\n\n[providers.acme]\nallow_timed_out_state = true\n\n'
        '[providers.other]\npreset = "provider"\n'
    )
    policies = load_policies(file)
    # And settings that a provider does not have come from the default
    assert policies.of("acme") == policy_from({"allow_timed_out_state": True}, PLATFORM)
    assert policies.of("other") == PROVIDER
    assert policies.of(None) == policies.of("nobody") == PLATFORM


def test_without_a_file_everybody_has_the_provider_preset() -> None:
    assert load_policies(None) == Policies()
    assert Policies().of("acme") == PROVIDER


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b'[default]\npreset = "acme"', "default.preset: must be one of provider, platform"),
        (b"[providers.acme]\nemail_on = 7", "providers.acme.email_on: must be a list of statuses out of"),
        (b"default = 1", r"default: must be a table \[default\]"),
        (b"providers = 1", r"providers: must be tables \[providers.NAME\]"),
        (b"[provider.acme]", "provider: is not allowed"),
        (b"not toml", "is no TOML"),
        (b"\n\xff", "is no TOML: line 2 is not UTF-8"),
    ],
)
def test_a_broken_file_is_refused(tmp_path: Path, content: bytes, problem: str) -> None:
    file = tmp_path / "policies.toml"
    file.write_bytes(content)
    with pytest.raises(ConfigurationError, match=f"policies file {file}: {problem}"):
        load_policies(file)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read"):
        load_policies(tmp_path / "nowhere.toml")
