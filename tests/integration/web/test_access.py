"""Who may call, for what and how often."""

from pathlib import Path
from typing import Any

import pytest

from events.commands import Command
from events.errors import InvalidMessageError
from invigilator.web.console.app import read_sign_in
from invigilator.web.server import check_sources, read_tokens
from invigilator.web.tokens import LOCAL_SOURCE, Tokens, digest, load_tokens, new_token
from tests import sample_commands as c
from tests.integration.web.conftest import Api
from tests.unit.web.console.test_signin import FORWARDING
from worker.commands.trust import load_trust
from worker.errors import ConfigurationError
from worker.settings import Settings

READER, SENDER = new_token(), new_token()
FILE = f"""
["reader"]
sha256 = "{digest(READER)}"
scopes = ["read"]

["front end"]
sha256 = "{digest(SENDER)}"
scopes = ["command"]
source = "/lms/acme"
types = ["exam.attempt.create.v1"]
"""
CREATE = {"type": "exam.attempt.create.v1", "data": {"exam_id": "A", "user_id": "42"}}
COURSE = {"type": "course.upsert.v1", "data": {"course_id": "x"}}


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


@pytest.fixture
def tokens(tmp_path: Path) -> Tokens:
    file = tmp_path / "tokens.toml"
    file.write_text(FILE)
    return load_tokens(file)


@pytest.fixture
def guarded(api: Api, tokens: Tokens) -> Api:
    """The API with a file of tokens."""
    api.tokens = tokens
    return api


@pytest.mark.parametrize(
    "headers",
    [
        {},
        bearer(""),
        bearer("inv_unknown"),
        {"Authorization": READER},
        {"Authorization": f"Basic {READER}"},
        {"Authorization": b"Bearer \xff"},
    ],
)
def test_without_a_token_every_call_is_refused(guarded: Api, headers: Any) -> None:
    for path in ("/v1/attempts", "/v1/attempt", "/v1/commands", "/v1/timeline", "/v1/events"):
        answer = guarded.get(path, headers)
        assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized")
        assert answer.headers["www-authenticate"] == "Bearer"
    assert guarded.call("POST", "/v1/commands", json=CREATE, headers=headers).status_code == 401
    assert guarded.sink.published == []
    assert guarded.get("/healthz").status_code == 200


def test_a_scope_is_for_what_it_says(guarded: Api) -> None:
    assert guarded.get("/v1/attempts", bearer(READER)).status_code == 200
    refused = guarded.get("/v1/attempts", bearer(SENDER))
    assert (refused.status_code, refused.json()["code"]) == (403, "not_allowed")
    refused = guarded.call("POST", "/v1/commands", json=CREATE, headers=bearer(READER))
    assert (refused.status_code, refused.json()["code"]) == (403, "not_allowed")


def test_commands_have_the_source_of_their_token_and_are_of_its_types(guarded: Api) -> None:
    sent = guarded.call("POST", "/v1/commands", json=CREATE, headers=bearer(SENDER))
    assert sent.json()["commands"][0]["source"] == "/lms/acme"
    refused = guarded.call("POST", "/v1/commands", json=[CREATE, COURSE], headers=bearer(SENDER))
    problem = refused.json()
    assert (refused.status_code, problem["code"], problem["index"]) == (403, "not_allowed", 1)
    assert len(guarded.sink.published) == 1


def test_each_token_has_a_rate_of_its_own(guarded: Api) -> None:
    guarded.rate = 1
    assert guarded.get("/v1/attempts", bearer(READER)).status_code == 200
    refused = [guarded.get("/v1/attempts", bearer(READER)) for _ in range(20)][-1]
    assert (refused.status_code, refused.json()["code"]) == (429, "rate_limited")
    assert refused.headers["retry-after"] == "1"
    assert guarded.call("POST", "/v1/commands", json=CREATE, headers=bearer(SENDER)).status_code == 202


@pytest.mark.parametrize("header", FORWARDING)
def test_without_tokens_nobody_may_call_through_a_proxy(api: Api, header: str) -> None:
    refused = api.get("/v1/attempts", {header: "1.2.3.4"})
    assert (refused.status_code, refused.json()["code"]) == (401, "unauthorized")
    assert "proxy" in refused.json()["detail"]


@pytest.mark.parametrize("host", ["evil.example", "10.0.0.1:8080", "localhost.evil.example", "[", ""])
def test_without_a_file_only_this_machine_is_answered(api: Api, host: str) -> None:
    answer = api.get("/v1/attempts", {"Host": host})
    assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized")
    for ours in ("localhost:8080", "127.0.0.1", "[::1]:8080"):
        assert api.get("/v1/attempts", {"Host": ours}).status_code == 200


# --- at the start -------------------------------------------------------------------------------------------


def test_without_a_file_nobody_else_can_reach_it() -> None:
    with pytest.raises(ConfigurationError, match="INVIGILATOR_API_TOKENS_FILE is needed"):
        _tokens(web_address="0.0.0.0:8080")
    assert _tokens(web_address="[::1]:8080") is None


def test_where_people_must_sign_in_nobody_calls_without_a_token() -> None:
    tokens = _tokens(web_address="127.0.0.1:8080", web_trusted_proxies="127.0.0.1/32")
    assert tokens == Tokens({})


def _tokens(**given: Any) -> Tokens | None:
    settings = Settings(_env_file=None, **given)
    return read_tokens(settings, read_sign_in(settings))


def test_where_commands_must_be_signed_each_source_has_a_key(tmp_path: Path) -> None:
    # Given a key of one source
    file = tmp_path / "keys.toml"
    file.write_text(f'["/lms/acme"]\nkeys = ["{"k" * 32}"]\ntypes = ["exam.attempt.create.v1"]\n')
    trust = load_trust(file)
    assert trust is not None
    # When another one would send, then `web` does not start
    check_sources({"/lms/acme"}, trust)
    check_sources({LOCAL_SOURCE}, None)
    with pytest.raises(ConfigurationError, match=f"the source {LOCAL_SOURCE} of the API has no key"):
        check_sources({LOCAL_SOURCE, "/lms/acme"}, trust)
    # And what the file of keys refuses is refused, although a token would allow it
    assert trust.signing_key(Command("/lms/acme", "1", c.create("7"))) == "k" * 32
    with pytest.raises(InvalidMessageError, match="not_allowed"):
        trust.signing_key(Command("/lms/acme", "1", c.course()))
