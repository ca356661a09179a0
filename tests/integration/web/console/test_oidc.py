"""Sign-in at an OpenID provider: a certified one of npm, and one of ours that answers what no honest one would."""

import hmac
import json
import shutil
import subprocess
import threading
import time
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import httpx2 as httpx
import pytest
from joserfc import jwt
from joserfc.jwk import RSAKey
from starlette.testclient import TestClient

from invigilator.local.server import free_port
from tests.engines import unavailable
from tests.programs import run_program
from tests.unit.web.console.visiting import client, no_database, settings

PACKAGE = "oidc-provider@9.13.3"
CONSOLE = "http://127.0.0.1:8080"
SIGNED_IN = f"{CONSOLE}/console/signed-in"
CLIENT_ID = "invigilator"
CLIENT_SECRET = "a secret of tests only"
SEARCH = "/console/search"


def browser(issuer: str, **given: Any) -> TestClient:
    """A browser on this machine, at a console that signs in at a provider."""
    found = settings(
        web_oidc_issuer=issuer, web_oidc_client_id=CLIENT_ID, web_oidc_client_secret=CLIENT_SECRET, **given
    )
    return client(no_database(), found, address="127.0.0.1", base_url=CONSOLE)


def path_of(url: str) -> str:
    return url.removeprefix(CONSOLE)


# --- a certified provider ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The issuer of a provider that runs."""
    if shutil.which("npm") is None:
        unavailable("no npm")
    folder = tmp_path_factory.mktemp("provider")
    install = ("npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", PACKAGE)
    installed = run_program(*install, folder=folder)
    if installed.returncode != 0:
        unavailable(f"npm install failed: {installed.stderr[-500:]}")
    shutil.copy(Path(__file__).with_name("provider.mjs"), folder)
    port = str(free_port())
    command = ("node", "provider.mjs", port, CLIENT_ID, CLIENT_SECRET, SIGNED_IN)
    with subprocess.Popen(
        command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        try:
            assert process.stdout is not None
            for line in process.stdout:
                if line.strip() == "ready":
                    break
            yield f"http://127.0.0.1:{port}"
        finally:
            process.kill()


def sent_to(one: TestClient, path: str = SEARCH) -> str:
    """Open a page, and return where at the provider the console sends people."""
    to_sign_in = one.get(path)
    assert to_sign_in.status_code == HTTPStatus.SEE_OTHER
    to_provider = one.get(to_sign_in.headers["location"])
    assert to_provider.status_code == HTTPStatus.FOUND, to_provider.text
    return str(to_provider.headers["location"])


def sign_in_there(url: str, account: str, groups: str) -> str:
    """Sign in at the provider, and return where it sends people back to."""
    with httpx.Client() as at_provider:
        answer = at_provider.get(url)
        while not (place := answer.headers["location"]).startswith(SIGNED_IN):
            place = str(answer.url.join(place))
            if "/sign-in/" in place:
                place += "?" + urlencode({"account": account, "groups": groups})
            answer = at_provider.get(place)
    return path_of(place)


def test_somebody_signs_in_and_comes_back_to_the_page(provider: str) -> None:
    one = browser(provider)
    back = sign_in_there(sent_to(one, f"{SEARCH}?q="), "ada", "staff,invigilator-operator")
    answer = one.get(back)
    assert answer.status_code == HTTPStatus.SEE_OTHER, answer.text
    assert answer.headers["location"] == f"{SEARCH}?q="
    page = one.get(answer.headers["location"])
    assert "name of ada (ada)</bdi>, operator" in page.text
    assert "Sign out" in page.text
    # The same answer is good for one sign-in only
    assert one.get(back).status_code == HTTPStatus.BAD_REQUEST


def test_somebody_without_a_group_of_ours_is_refused(provider: str) -> None:
    one = browser(provider)
    answer = one.get(sign_in_there(sent_to(one), "eve", "staff"))
    assert answer.status_code == HTTPStatus.FORBIDDEN
    assert one.get(SEARCH).status_code == HTTPStatus.SEE_OTHER


def test_the_answer_to_another_browser_is_refused(provider: str) -> None:
    mine, theirs = browser(provider), browser(provider)
    sent_to(theirs)
    back = sign_in_there(sent_to(mine), "ada", "invigilator-admin")
    assert theirs.get(back).status_code == HTTPStatus.BAD_REQUEST
    assert theirs.get(SEARCH).status_code == HTTPStatus.SEE_OTHER


@pytest.mark.parametrize("parameter", ["nonce", "code_challenge"])
def test_the_answer_to_another_question_is_refused(provider: str, parameter: str) -> None:
    one = browser(provider)
    url = sent_to(one)
    query = {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}
    assert query["code_challenge_method"] == "S256"
    query[parameter] = "A" * 43
    back = sign_in_there(f"{url.partition('?')[0]}?{urlencode(query)}", "ada", "invigilator-admin")
    assert one.get(back).status_code == HTTPStatus.BAD_REQUEST


def test_a_provider_that_calls_itself_otherwise_is_refused(provider: str) -> None:
    one = browser(provider.replace("127.0.0.1", "localhost"))
    assert one.get("/console/sign-in").status_code == HTTPStatus.BAD_REQUEST


def test_signing_out_needs_a_form_of_ours_and_ends_the_session(provider: str) -> None:
    one = browser(provider)
    one.get(one.get(sign_in_there(sent_to(one), "ada", "invigilator-viewer")).headers["location"])
    assert one.post("/console/sign-out", data={"csrf": "x"}).status_code == HTTPStatus.FORBIDDEN
    token = one.get(SEARCH).text.partition('name="csrf" value="')[2].partition('"')[0]
    assert one.post("/console/sign-out", data={"csrf": token}).status_code == HTTPStatus.SEE_OTHER
    assert one.get(SEARCH).status_code == HTTPStatus.SEE_OTHER


@pytest.mark.parametrize(
    "next_", ["https://evil.example/console/", "//evil.example/console/", "/console/../x\\", "/other", ""]
)
def test_nobody_is_sent_elsewhere_after_the_sign_in(provider: str, next_: str) -> None:
    one = browser(provider)
    answer = one.get("/console/sign-in", params={"next": next_})
    back = sign_in_there(answer.headers["location"], "ada", "invigilator-viewer")
    assert one.get(back).headers["location"] == "/console/"


# --- a provider that lies ----------------------------------------------------------------------------------

KEY = RSAKey.generate_key(2048, {"kid": "1", "use": "sig"})
OTHER_KEY = RSAKey.generate_key(2048, {"kid": "1", "use": "sig"})


@dataclass
class Liar:
    """A provider that gives every code the same ID token.

    Parameters:
        algorithms: those that it says it signs with.
        token: what the next ID token is. None for an answer without one.
    """

    issuer: str = ""
    algorithms: list[str] = field(default_factory=lambda: ["RS256", "HS256", "none"])
    token: str | None = None

    def documents(self) -> dict[str, Any]:
        return {
            "/.well-known/openid-configuration": {
                "issuer": self.issuer,
                "authorization_endpoint": f"{self.issuer}/auth",
                "token_endpoint": f"{self.issuer}/token",
                "jwks_uri": f"{self.issuer}/jwks",
                "id_token_signing_alg_values_supported": self.algorithms,
            },
            "/jwks": {"keys": [KEY.as_dict(private=False)]},
            "/token": {
                "access_token": "a",
                "token_type": "Bearer",
                **({} if self.token is None else {"id_token": self.token}),
            },
        }


@contextmanager
def lying() -> Iterator[Liar]:
    liar = Liar()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps(liar.documents()[self.path]).encode()
            self.send_response(HTTPStatus.OK)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.do_GET()

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        liar.issuer = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield liar
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(scope="module")
def _liar() -> Iterator[Liar]:
    with lying() as liar:
        yield liar


@pytest.fixture
def liar(_liar: Liar) -> Liar:
    _liar.token = None
    return _liar


def answered(liar: Liar, make: Any, **claims: Any) -> TestClient:
    """A browser that has come back with a token, which is right but for the claims that are given."""
    one = browser(liar.issuer)
    asked = {name: values[0] for name, values in parse_qs(urlsplit(sent_to(one)).query).items()}
    right = {
        "iss": liar.issuer,
        "aud": CLIENT_ID,
        "sub": "ada",
        "nonce": asked["nonce"],
        "iat": int(time.time()),
        "exp": int(time.time()) + 300,
        "groups": ["invigilator-admin"],
    }
    liar.token = make({name: value for name, value in (right | claims).items() if value is not None})
    one.get(path_of(f"{SIGNED_IN}?{urlencode({'code': 'c', 'state': asked['state']})}"))
    return one


def signed(claims: dict[str, Any], key: RSAKey = KEY) -> str:
    return jwt.encode({"alg": "RS256", "kid": "1"}, claims, key)


def is_in(one: TestClient) -> bool:
    return one.get(SEARCH).status_code == HTTPStatus.OK


def test_a_right_token_is_accepted(liar: Liar) -> None:
    assert is_in(answered(liar, signed))


@pytest.mark.parametrize(
    "claims",
    [
        {"iss": "https://other.example"},
        {"iss": None},
        {"aud": "somebody else"},
        {"aud": None},
        {"nonce": "another"},
        {"nonce": None},
        {"exp": 1_000_000_000},
        {"exp": None},
        {"sub": None},
        {"groups": {"invigilator-admin": True}},
        {"groups": [["invigilator-admin"]]},
        {"groups": None},
        {"sub": "a\nb"},
    ],
    ids=str,
)
def test_a_token_with_a_wrong_claim_is_refused(liar: Liar, claims: dict[str, Any]) -> None:
    assert not is_in(answered(liar, signed, **claims))


def with_another_key(claims: dict[str, Any]) -> str:
    return signed(claims, OTHER_KEY)


def written(header: dict[str, Any], claims: dict[str, Any]) -> str:
    parts = (urlsafe_b64encode(json.dumps(one).encode()).rstrip(b"=").decode() for one in (header, claims))
    return ".".join(parts)


def unsigned(claims: dict[str, Any]) -> str:
    return written({"alg": "none"}, claims) + "."


def with_the_public_key_as_a_secret(claims: dict[str, Any]) -> str:
    text = written({"alg": "HS256", "kid": "1"}, claims)
    signature = hmac.digest(KEY.as_pem(private=False), text.encode(), "sha256")
    return f"{text}.{urlsafe_b64encode(signature).rstrip(b'=').decode()}"


def no_token(_claims: dict[str, Any]) -> None:
    return None


@pytest.mark.parametrize("make", [with_another_key, unsigned, with_the_public_key_as_a_secret, no_token])
def test_a_token_that_the_provider_has_not_signed_is_refused(liar: Liar, make: Any) -> None:
    assert not is_in(answered(liar, make))
