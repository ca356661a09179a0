"""Who gets in, and with which role."""

import json
import time
from base64 import b64encode
from collections.abc import Mapping
from typing import Any

import itsdangerous
import pytest
from starlette.testclient import TestClient

from invigilator.acts.actor import Role
from invigilator.web.console.app import COOKIE, SECURE_COOKIE, read_sign_in
from invigilator.web.console.people import role_of
from tests.unit.web.console.visiting import behind_proxy, client, no_database, of_person, settings
from worker.errors import ConfigurationError

FORWARDING = (
    "CF-Connecting-IP",
    "Forwarded",
    "Via",
    "X-Forwarded-For",
    "X-Forwarded-Groups",
    "X-Forwarded-Host",
    "X-Forwarded-Proto",
    "X-Forwarded-User",
    "X-Real-IP",
)
SEARCH = "/console/search"
"""A page that asks no database."""
LOCAL = "http://127.0.0.1:8080"
PROVIDER = {
    "web_oidc_issuer": "https://id.example",
    "web_oidc_client_id": "invigilator",
    "web_oidc_client_secret": "secret",
}


def local(base_url: str = LOCAL) -> TestClient:
    return client(no_database(), settings(), address="127.0.0.1", base_url=base_url)


def test_groups_give_their_highest_role() -> None:
    others = {"ops": Role.OPERATOR}
    assert role_of(["invigilator-viewer", "invigilator-admin"], {}) is Role.ADMIN
    assert role_of(["ops", "invigilator-viewer"], others) is Role.OPERATOR
    assert role_of(["ops"], {}) is None
    assert role_of([], others) is None


def test_on_this_machine_everybody_is_an_administrator_and_is_told_so() -> None:
    page = local().get(SEARCH)
    assert page.status_code == 200
    assert "local</bdi>, admin" in page.text
    assert "Nobody has to sign in" in page.text


@pytest.mark.parametrize(
    "headers",
    [{"Host": "attacker.example"}, {"Host": "attacker.example:8080"}, {"Host": ""}, {"Host": "127.0.0.1.x"}],
)
def test_a_page_elsewhere_cannot_reach_it_by_a_name_of_its_own(headers: Mapping[str, str]) -> None:
    assert local().get(SEARCH, headers=headers).status_code == 421


@pytest.mark.parametrize("header", FORWARDING)
def test_nobody_is_local_who_comes_through_a_proxy(header: str) -> None:
    assert local().get(SEARCH, headers={header: "1.2.3.4"}).status_code == 403


def test_a_trusted_proxy_says_who_somebody_is() -> None:
    page = behind_proxy(no_database(), Role.OPERATOR, "ada <b>").get(SEARCH)
    assert page.status_code == 200
    assert "ada &lt;b&gt;</bdi>, operator" in page.text
    assert "Nobody has to sign in" not in page.text


@pytest.mark.parametrize(
    ("address", "allowed"),
    [
        ("10.1.255.255", True),
        ("::ffff:10.1.2.3", True),
        ("10.2.0.1", False),
        ("127.0.0.1", False),
        ("x", False),
    ],
)
def test_headers_from_elsewhere_are_not_believed(address: str, allowed: bool) -> None:
    browser = client(no_database(), settings(web_trusted_proxies="10.1.0.0/16"), address=address)
    answer = browser.get(SEARCH, headers=of_person("ada", Role.ADMIN))
    assert (answer.status_code == 200) is allowed


@pytest.mark.parametrize(
    "headers",
    [
        [("X-Forwarded-Groups", "invigilator-admin")],
        [("X-Forwarded-User", ""), ("X-Forwarded-Groups", "invigilator-admin")],
        [("X-Forwarded-User", "ada")],
        [("X-Forwarded-User", "ada"), ("X-Forwarded-Groups", "invigilator-admins,admin")],
        [
            ("X-Forwarded-User", "ada"),
            ("X-Forwarded-User", "eve"),
            ("X-Forwarded-Groups", "invigilator-admin"),
        ],
        [
            ("X-Forwarded-User", "ada"),
            ("X-Forwarded-Groups", "invigilator-admin"),
            ("X-Forwarded-Groups", "invigilator-viewer"),
        ],
    ],
)
def test_who_has_no_name_or_no_role_or_two_is_refused(headers: list[tuple[str, str]]) -> None:
    browser = client(no_database(), settings(web_trusted_proxies="10.1.0.0/16"))
    assert browser.get(SEARCH, headers=headers).status_code == 403


def test_other_groups_may_be_given_a_role() -> None:
    browser = client(
        no_database(), settings(web_trusted_proxies="10.1.0.0/16", web_roles="exam ops=operator, it=admin")
    )
    headers = {"X-Forwarded-User": "ada", "X-Forwarded-Groups": "it, exam ops"}
    assert "ada</bdi>, admin" in browser.get(SEARCH, headers=headers).text


@pytest.mark.parametrize(
    ("given", "base_url", "secure"),
    [
        ({}, LOCAL, False),
        ({"web_url": "https://console.example"}, "https://console.example", True),
        (
            {"web_address": "10.0.0.1:80", "web_trusted_proxies": "127.0.0.1/32"},
            "https://console.example",
            True,
        ),
    ],
)
def test_the_cookie_is_kept_from_scripts_and_from_other_sites(
    given: Mapping[str, Any], base_url: str, secure: bool
) -> None:
    headers = of_person("ada", Role.VIEWER) if "web_trusted_proxies" in given else {}
    given = {"web_trusted_proxies": "127.0.0.1/32", **given} if secure else given
    headers = of_person("ada", Role.VIEWER) if secure else headers
    browser = client(no_database(), settings(**given), address="127.0.0.1", base_url=base_url)
    cookie = browser.get(SEARCH, headers=headers).headers["set-cookie"].lower()
    assert cookie.startswith((SECURE_COOKIE if secure else COOKIE).lower() + "=")
    assert "httponly" in cookie
    assert "samesite=lax" in cookie
    assert "max-age=28800" in cookie
    assert ("; secure" in cookie) is secure


def signed(session: Mapping[str, Any], key: str) -> str:
    """A session as the cookie holds it."""
    value = b64encode(json.dumps(session).encode())
    return itsdangerous.TimestampSigner(key).sign(value).decode()


def test_a_cookie_of_another_key_is_none() -> None:
    given = {**PROVIDER, "web_url": "https://console.example"}
    browser = client(no_database(), settings(**given, web_session_key="a" * 32))
    forged = client(no_database(), settings(**given, web_session_key="b" * 32))

    session = {"person": {"name": "eve", "role": "admin", "since": time.time()}}
    for one, key, status in ((browser, "a" * 32, 200), (forged, "a" * 32, 303)):
        one.cookies.set(SECURE_COOKIE, signed(session, key))
        assert one.get(SEARCH).status_code == status


def test_a_sign_in_ends_after_eight_hours() -> None:

    browser = client(
        no_database(), settings(**PROVIDER, web_url="https://console.example", web_session_key="k" * 32)
    )
    session = {"person": {"name": "ada", "role": "admin", "since": time.time() - 8 * 3600 - 1}}
    browser.cookies.set(SECURE_COOKIE, signed(session, "k" * 32))
    answer = browser.get(f"{SEARCH}?q=7&x=1")
    assert answer.status_code == 303
    assert answer.headers["location"] == "/console/sign-in?next=%2Fconsole%2Fsearch%3Fq%3D7%26x%3D1"


def test_a_part_of_a_page_that_needs_a_sign_in_has_the_browser_go_there() -> None:
    browser = client(no_database(), settings(**PROVIDER), address="127.0.0.1", base_url=LOCAL)
    answer = browser.get(SEARCH, headers={"HX-Request": "true"})
    assert answer.headers["hx-redirect"].startswith("/console/sign-in")


def test_beyond_this_machine_nobody_is_signed_in_by_default() -> None:
    assert read_sign_in(settings(web_address="0.0.0.0:8080")) is None


def test_the_provider_must_know_where_to_send_people_back_to() -> None:
    with pytest.raises(ConfigurationError, match="WEB_URL"):
        read_sign_in(settings(web_address="0.0.0.0:8080", **PROVIDER))


def test_nothing_is_loaded_from_elsewhere_and_nobody_shows_it_in_a_frame() -> None:
    for path in (SEARCH, "/console/nowhere", "/console/static/console.css", "/console/attempt"):
        headers = local().get(path).headers
        assert headers["content-security-policy"].startswith("default-src 'self'; ")
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["x-content-type-options"] == "nosniff"


def test_an_unexpected_error_is_told_with_the_same_headers() -> None:
    browser = local()
    answer = browser.get("/console/effects")  # the database is away
    assert answer.status_code == 503
    assert "The database cannot answer now" in answer.text
    assert "default-src 'self'" in answer.headers["content-security-policy"]
