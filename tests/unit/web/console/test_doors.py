"""Who may use which route, by requests that nobody's page has made."""

import json
import threading
from base64 import b64decode
from dataclasses import replace
from itertools import product

import pytest
from starlette.responses import Response
from starlette.testclient import TestClient

from invigilator.acts.actor import ACTIONS, Action, Role, may
from invigilator.web.console.doors import Door
from invigilator.web.console.pages import DOORS
from tests.unit.web.console.visiting import behind_proxy, client, no_database, of_person, settings

SEARCH = "/console/search"
REFUSED = 403


def token_of(browser: TestClient) -> str:
    """The token that the forms of a person hold. A viewer's pages have no form, and a cookie can be read."""
    browser.get(SEARCH)
    [cookie] = browser.cookies.jar
    assert cookie.value is not None
    session = json.loads(b64decode(cookie.value.strip('"').partition(".")[0]))
    return str(session["csrf"]["token"])


def send(browser: TestClient, door: Door, **fields: str) -> int:
    path = f"/console{door.path}"
    if door.method == "GET":
        return browser.get(path).status_code
    return browser.post(path, data=fields).status_code


@pytest.fixture(scope="module")
def browsers() -> dict[Role | None, TestClient]:
    return {role: behind_proxy(no_database(), role) for role in (*Role, None)}


@pytest.mark.parametrize(
    ("door", "role"),
    list(product(DOORS, (*Role, None))),
    ids=lambda one: one.path if isinstance(one, Door) else str(one),
)
def test_a_route_lets_in_the_roles_of_the_table(
    door: Door, role: Role | None, browsers: dict[Role | None, TestClient]
) -> None:
    browser = browsers[role]
    allowed = role is not None and (door.needs is None or may(role, door.needs))
    # Without a database, whoever is let in gets another error.
    token = token_of(browser) if role is not None else ""
    assert (send(browser, door, csrf=token) != REFUSED) is allowed


@pytest.mark.parametrize("door", [one for one in DOORS if one.method == "POST"], ids=lambda one: one.path)
@pytest.mark.parametrize("token", ["", "x", "of another"])
def test_a_form_that_is_none_of_the_persons_pages_is_refused(
    door: Door, token: str, browsers: dict[Role | None, TestClient]
) -> None:
    mine = browsers[Role.ADMIN]
    token_of(mine)
    sent = token_of(behind_proxy(no_database(), Role.ADMIN)) if token == "of another" else token
    assert send(mine, door, csrf=sent) == REFUSED


def test_what_changes_something_is_sent_by_forms_and_needs_an_action() -> None:
    assert all(door.needs is not None for door in DOORS if door.method == "POST")


def test_every_action_has_a_role() -> None:
    assert set(ACTIONS) == set(Action)


def test_no_route_is_in_the_table_twice() -> None:
    routes = [(door.method, door.path) for door in DOORS]
    assert len(routes) == len(set(routes))


@pytest.mark.parametrize("door", DOORS, ids=lambda one: f"{one.method} {one.path}")
def test_without_a_sign_in_there_is_nothing_to_see(door: Door) -> None:
    given = {
        "web_oidc_issuer": "https://id.example",
        "web_oidc_client_id": "a",
        "web_oidc_client_secret": "b",
    }
    browser = client(no_database(), settings(**given, web_url="https://console.example"))
    answer = browser.request(door.method, f"/console{door.path}", data={} if door.method == "POST" else None)
    assert answer.status_code == (303 if door.method == "GET" else 401)
    browser.headers.update(of_person("eve", Role.ADMIN))  # headers of a proxy, where none is trusted
    assert browser.get(f"/console{door.path}").status_code in (303, 405)


@pytest.mark.parametrize(
    ("headers", "allowed"),
    [
        ({}, True),
        ({"Origin": "https://console.example"}, True),
        ({"Origin": "null", "Sec-Fetch-Site": "same-origin"}, True),
        ({"Origin": "https://console.example", "Sec-Fetch-Site": "same-origin"}, True),
        ({"Origin": "null"}, False),
        ({"Origin": "https://evil.example"}, False),
        ({"Origin": "https://evil.example", "Sec-Fetch-Site": "same-origin"}, False),
        ({"Origin": "http://console.example"}, False),
        ({"Sec-Fetch-Site": "cross-site"}, False),
        ({"Sec-Fetch-Site": "same-site"}, False),
        ({"Sec-Fetch-Site": "none"}, False),
    ],
    ids=str,
)
def test_another_site_cannot_send_a_form(headers: dict[str, str], allowed: bool) -> None:
    browser = behind_proxy(no_database(), Role.ADMIN, web_url="https://console.example")
    door = next(one for one in DOORS if one.method == "POST")
    answer = browser.post(f"/console{door.path}", data={"csrf": token_of(browser)}, headers=headers)
    assert (answer.status_code != REFUSED) is allowed


def test_a_form_that_is_too_large_is_refused() -> None:
    browser = behind_proxy(no_database(), Role.ADMIN)
    door = next(one for one in DOORS if one.method == "POST")
    sent = {"csrf": token_of(browser), "x": "x" * 300_000}
    assert browser.post(f"/console{door.path}", data=sent).status_code == 413


def test_at_another_name_there_is_no_console() -> None:
    browser = behind_proxy(no_database(), Role.ADMIN, web_url="https://console.example")
    assert browser.get(SEARCH, headers={"Host": "evil.example"}).status_code == 421


def test_a_page_that_waits_for_a_frozen_database_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    thaws = threading.Event()
    door = next(one for one in DOORS if one.path == "/causes")
    frozen = replace(door, page=lambda *_: Response(str(thaws.wait(60))), answer_s=0.01)
    monkeypatch.setattr("invigilator.web.console.app.DOORS", [frozen])
    try:
        answer = behind_proxy(no_database(), Role.VIEWER).get("/console/causes")
    finally:
        thaws.set()
    assert (answer.status_code, "The database does not answer." in answer.text) == (503, True)
