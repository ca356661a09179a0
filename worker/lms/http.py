"""The HTTP adapter for the LMS's credit and instructor services (calls: docs/contract.md).

A synchronous HTTP client cannot keep a deadline. Its time-outs apply to each read, so a server that sends one
byte a second never exceeds them. Therefore the calls run on an event loop in a thread of its own. There a
deadline cancels the whole call at any point: name look-up, connect, headers or body.
"""

import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from ssl import create_default_context

import anyio
import httpx

from worker.errors import ConfigurationError, Unavailable
from worker.lms.http_answers import TOKEN_SETTING, Answer, course_name, raise_unless_done
from worker.lms.loop import LoopThread
from worker.lms.ports import CallKey, CreditRequirement, Deadline

MAX_BODY_BYTES = 64 * 1024
MAX_PORT = 65_535


class HttpLms:
    """A client of both services with a pool of connections. Many threads may call it at the same time.

    Certificates are checked against the system's store; `SSL_CERT_FILE` and `SSL_CERT_DIR` name another one.
    The client ignores the environment's proxies and follows no redirects.

    Every call raises `Unavailable` or `Misconfigured` when a retry may help, and `Refused` when it will not.
    """

    def __init__(self, base_url: str, token: str | None = None) -> None:
        """Check the settings. The first call starts the thread and connects.

        Parameters:
            base_url: the URL before the paths of the services. It may have a path of its own.
            token: sent as `Authorization: Bearer …`.

        Raises:
            ConfigurationError: a setting cannot work.
        """
        self._base_url = _checked_base_url(base_url)
        self._withheld = frozenset({token} if token else ())
        # No compression: MAX_BODY_BYTES then bounds the memory that an answer takes.
        self._headers = {
            "User-Agent": "invigilator",
            "Accept": "application/json",
            "Accept-Encoding": "identity",
        }
        if token is not None:
            self._headers["Authorization"] = f"Bearer {_checked_token(token)}"
        self._start_lock = threading.Lock()
        self._running: _Running | None = None

    def set_status(
        self, requirement: CreditRequirement, status: str, key: CallKey, deadline: Deadline
    ) -> None:
        """Set the requirement to `status`: satisfied, submitted, failed or declined."""
        body = {**_requirement_body(requirement), "status": status}
        self.post("/credit/set-requirement-status", body, key, deadline)

    def remove(self, requirement: CreditRequirement, key: CallKey, deadline: Deadline) -> None:
        """Remove the requirement. The LMS also accepts the removal of one that does not exist."""
        self.post("/credit/remove-requirement-status", _requirement_body(requirement), key, deadline)

    def course_name(self, user_id: str, course_id: str, deadline: Deadline) -> str | None:
        """Return the course's name, or None when the LMS answers 404 or with no name."""
        call = _Call("GET", "/credit/state", params={"user_id": user_id, "course_id": course_id})
        answer = self._answer(call, deadline)
        if answer.status == HTTPStatus.NOT_FOUND:
            return None
        raise_unless_done(answer, str(call), self._withheld)
        return course_name(answer.body)

    def delete_student_attempt(
        self,
        username: str,
        course_id: str,
        content_id: str,
        requested_by: str | None,
        key: CallKey,
        deadline: Deadline,
    ) -> None:
        """Reset the learner's work on one exam."""
        body = {
            "username": username,
            "course_id": course_id,
            "content_id": content_id,
            "requested_by": requested_by,
        }
        self.post("/instructor/delete-student-attempt", body, key, deadline)

    def close(self) -> None:
        """Close the connections and end the thread. No call may be running."""
        with self._start_lock:
            if self._running is not None:
                self._running.loop.run(self._running.client.aclose())
                self._running.loop.close()
                self._running = None

    def post(self, path: str, body: Mapping[str, str | None], key: CallKey, deadline: Deadline) -> None:
        """Make a call that changes something. The adapter of another service of the LMS makes its calls with this.

        Parameters:
            path: below the base URL.
            body: the JSON object of the contract.
            key: sent in the headers, so that the LMS recognises a repeated or a late call.
            deadline: of the whole call.

        Raises:
            Transient: another try may help.
            Permanent: it will not.
        """
        headers = {"Idempotency-Key": str(key.effect_id), "Invigilator-Sequence": str(key.sequence)}
        call = _Call("POST", path, json=body, headers=headers)
        # The reset carries a username, and an answer may repeat it.
        withheld = self._withheld | {body.get("username") or ""}
        raise_unless_done(self._answer(call, deadline), str(call), withheld)

    def _answer(self, call: "_Call", deadline: Deadline) -> Answer:
        deadline.check(str(call))
        running = self._started()
        return running.loop.run(_answer_to(running.client, call, deadline))

    def _started(self) -> "_Running":
        with self._start_lock:
            if self._running is None:
                client = httpx.AsyncClient(
                    base_url=self._base_url,
                    headers=self._headers,
                    verify=create_default_context(),
                    timeout=httpx.Timeout(None),  # the deadline covers all of it
                    limits=httpx.Limits(max_connections=None),  # as many as there are threads that call
                    trust_env=False,
                    follow_redirects=False,
                )
                self._running = _Running(LoopThread("lms-http"), client)
            return self._running


@dataclass(frozen=True, slots=True)
class _Running:
    loop: LoopThread
    client: httpx.AsyncClient


@dataclass(frozen=True, slots=True)
class _Call:
    method: str
    path: str
    params: Mapping[str, str] | None = None
    json: Mapping[str, str | None] | None = None
    headers: Mapping[str, str] | None = None

    def __str__(self) -> str:
        # This text goes into messages. The parameters and the body are personal data, so they stay out.
        return f"{self.method} {self.path}"


async def _answer_to(client: httpx.AsyncClient, call: _Call, deadline: Deadline) -> Answer:
    try:
        # Not asyncio.timeout(): with its kind of cancellation, httpx's pool sometimes leaks a connection (seen).
        with anyio.fail_after(deadline.remaining_s()):
            return await _exchange(client, call)
    except TimeoutError:
        raise deadline.late(str(call)) from None
    except (httpx.TransportError, OSError) as error:
        # Only the class is shown, because the text may quote a header, and with it the token.
        cause = type(_first_cause(error)).__name__
        raise Unavailable(f"no answer from the LMS to {call} ({cause}); check INVIGILATOR_LMS_URL") from None


async def _exchange(client: httpx.AsyncClient, call: _Call) -> Answer:
    request = client.stream(call.method, call.path, params=call.params, json=call.json, headers=call.headers)
    async with request as response:
        body = bytearray()
        async for chunk in response.aiter_raw():
            body += chunk
            if len(body) > MAX_BODY_BYTES:
                break  # the context manager then closes the connection
        retry_after = response.headers.get("Retry-After")
        return Answer(response.status_code, retry_after, bytes(body[:MAX_BODY_BYTES]))


def _requirement_body(requirement: CreditRequirement) -> dict[str, str]:
    return {
        "user_id": requirement.user_id,
        "course_id": requirement.course_id,
        "req_namespace": requirement.namespace,
        "req_name": requirement.name,
    }


def _first_cause(error: BaseException) -> BaseException:
    while (cause := error.__cause__ or error.__context__) is not None:
        error = cause
    return error


def _checked_base_url(base_url: str) -> httpx.URL:
    allowed = "INVIGILATOR_LMS_URL must be http(s)://host[:port][/path], without user, query or fragment"
    try:
        url = httpx.URL(base_url)
        url.raw_host.decode("ascii").encode("idna")  # a bad name raises ValueError here, not at each look-up
    except (httpx.InvalidURL, ValueError):
        raise ConfigurationError(allowed) from None
    if url.scheme not in ("http", "https") or not url.host or (url.port or 0) > MAX_PORT:
        raise ConfigurationError(allowed)
    if url.userinfo or url.query or url.fragment:
        raise ConfigurationError(allowed)
    return url


def _checked_token(token: str) -> str:
    # Other characters would make each call fail, in an error that quotes the token.
    if not re.fullmatch(r"[\x21-\x7e]+", token):
        raise ConfigurationError(f"{TOKEN_SETTING} must be printable ASCII without spaces")
    return token
