"""Policies: the accepted settings and the refused ones."""

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from events.vocabulary import Status
from worker.errors import ConfigurationError
from worker.policies import Policies, load_policies
from worker.rules.policy import (
    PRESETS,
    CreditDeclined,
    ErrorAfterCompletion,
    MailSettings,
    Policy,
    ReenterRunning,
    RepeatStatus,
    TimedOutBeforeStart,
    TimeOuts,
)
from worker.rules.policy_settings import PolicyError, policy_from

PROVIDER, PLATFORM, EDX = (PRESETS[name] for name in ("provider", "platform", "edx-proctoring-6"))
MAIL: dict[str, Any] = {
    "review_days": 5,
    "contact": "exams@example.org, or 555-0100",
    "contact_url": "https://example.org/ask?about=exams",
    "course_url": "https://lms.example.org/courses/{course_id}/home",
}


def test_the_presets_are_those_of_the_rules() -> None:
    assert (PROVIDER.allow_timed_out_state, PROVIDER.repeat_status) == (
        TimeOuts.FROM_CREATED,
        RepeatStatus.IGNORE,
    )
    assert (PLATFORM.allow_timed_out_state, PLATFORM.repeat_status) == (TimeOuts.NEVER, RepeatStatus.REAPPLY)
    for policy in (PROVIDER, PLATFORM):
        assert policy.cascade_on == {Status.DECLINED, Status.REJECTED}
        assert len(policy.credit_on) == 6
        assert policy.cascade_from_practice
        assert policy.credit_declined is CreditDeclined.FAILED
        assert policy.reenter_running is ReenterRunning.ITSELF
        assert policy.error_after_completion is ErrorAfterCompletion.ILLEGAL
    for policy in PRESETS.values():
        assert policy.email_on == {Status.SUBMITTED, Status.VERIFIED, Status.REJECTED}
        assert not policy.protect_verdicts
        assert policy.timed_out_before_start is TimedOutBeforeStart.AS_POLICY
        assert policy.mail == MailSettings()


def test_the_preset_of_edx_proctoring_6_is_that_of_the_rules() -> None:
    assert policy_from({"preset": "edx-proctoring-6"}, PROVIDER) == EDX
    settings = {
        "preset": "platform",
        "allow_timed_out_state": False,
        "repeat_status": "reapply",
        "cascade_on": ["declined"],
        "cascade_from_practice": False,
        "credit_on": ["verified", "rejected", "declined", "submitted", "error"],
        "credit_declined": "declined",
        "reenter_running": "submitted",
        "error_after_completion": "legal",
        "protect_verdicts": False,
        "timed_out_before_start": "as_policy",
    }
    assert policy_from(settings, PROVIDER) == EDX
    # And every preset can override every setting
    back = {
        "cascade_on": ["declined", "rejected"],
        "credit_on": [str(status) for status in PLATFORM.credit_on],
        "cascade_from_practice": True,
        "credit_declined": "failed",
        "reenter_running": "itself",
        "error_after_completion": "illegal",
    }
    assert policy_from({"preset": "edx-proctoring-6", **back}, PROVIDER) == PLATFORM


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
            "cascade_from_practice": False,
            "credit_declined": "declined",
            "reenter_running": "submitted",
            "error_after_completion": "legal",
            "timed_out_before_start": "timed_out",
            **MAIL,
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
        False,
        CreditDeclined.DECLINED,
        ReenterRunning.SUBMITTED,
        ErrorAfterCompletion.LEGAL,
        TimedOutBeforeStart.TIMED_OUT,
        MailSettings(**MAIL),
    )
    assert all(getattr(policy, field.name) != getattr(PLATFORM, field.name) for field in fields(Policy))


def test_a_preset_takes_the_place_of_the_base() -> None:
    assert policy_from({"preset": "provider"}, PLATFORM) == PROVIDER
    assert policy_from({}, PLATFORM) == PLATFORM
    assert policy_from({"allow_timed_out_state": False}, PROVIDER).allow_timed_out_state is TimeOuts.NEVER
    assert policy_from({"allow_timed_out_state": "from_created"}, PLATFORM) == Policy(
        repeat_status=RepeatStatus.REAPPLY
    )


def test_a_preset_leaves_the_settings_of_the_mails() -> None:
    # Given a default that says whom to ask, then a provider that names a preset still says it
    default = policy_from(MAIL, PROVIDER)
    policy = policy_from({"preset": "edx-proctoring-6", "review_days": 3}, default)
    assert policy.mail == MailSettings(**{**MAIL, "review_days": 3})


@pytest.mark.parametrize(
    ("course_id", "link"),
    [
        ("phys", "https://lms.example.org/courses/phys/home"),
        ("course-v1:edX+Demo", "https://lms.example.org/courses/course-v1%3AedX%2BDemo/home"),
        ("a/b?c#d\r\n", "https://lms.example.org/courses/a%2Fb%3Fc%23d%0D%0A/home"),
        ("{course_id}", "https://lms.example.org/courses/%7Bcourse_id%7D/home"),
        ("physique appliquée", "https://lms.example.org/courses/physique%20appliqu%C3%A9e/home"),
    ],
)
def test_the_link_to_a_course(course_id: str, link: str) -> None:
    assert MailSettings(**MAIL).course_link(course_id) == link
    assert MailSettings().course_link(course_id) is None


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("review_days", 1),
        ("review_days", 365),
        ("contact", "اكتب إلى \u200fexams@example.org"),
        ("contact_url", "http://localhost:8000"),
        ("contact_url", "https://[::1]/ask"),
        ("course_url", "https://lms.example.org/courses"),
        ("course_url", "https://lms.example.org/open?course={course_id}&from=mail#{course_id}"),
    ],
)
def test_what_is_allowed_in_a_mail(key: str, value: Any) -> None:
    assert getattr(policy_from({key: value}, PROVIDER).mail, key) == value


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
        ("mail", {}),
        ("cascade_from_practice", "true"),
        ("credit_declined", "satisfied"),
        ("credit_declined", ["declined"]),
        ("reenter_running", "started"),
        ("reenter_running", False),
        ("error_after_completion", True),
        ("timed_out_before_start", "submitted"),
        ("review_days", 0),
        ("review_days", 366),
        ("review_days", True),
        ("review_days", 2.0),
        ("review_days", "5"),
        ("contact", ""),
        ("contact", "  "),
        ("contact", "exams@example.org\nBcc: all@example.org"),
        ("contact", "exams@example.org\u2028Bcc: all@example.org"),
        ("contact", "\x00"),
        ("contact", "\ud800"),
        ("contact", "x" * 201),
        ("contact", 5),
        ("contact_url", "exams@example.org"),
        ("contact_url", "javascript:alert(1)"),
        ("contact_url", "https://"),
        ("contact_url", "https://[::1/ask"),
        ("contact_url", 'https://example.org/"><b>'),
        ("contact_url", "https://example.org/a b"),
        ("contact_url", "https://example.org/{course_id}"),
        ("contact_url", "https://example.org/" + "x" * 2000),
        ("contact_url", None),
        ("course_url", "/courses/{course_id}"),
        ("course_url", "https://example.org/{course}"),
        ("course_url", "https://example.org/{course_id"),
        ("course_url", ["https://example.org/{course_id}"]),
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
        (
            b'[default]\npreset = "acme"',
            "default.preset: must be one of provider, platform, edx-proctoring-6",
        ),
        (b"[providers.acme]\nemail_on = 7", "providers.acme.email_on: must be a list of statuses out of"),
        (
            b'[providers.acme]\ncontact_url = "ask us"',
            "providers.acme.contact_url: must be an http:// or https:// URL",
        ),
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
