"""A client of the HTTP API: it sends a command, and waits for the outcome."""

import json
import re
from types import TracebackType
from typing import Any, Self

import httpx
from pydantic import BaseModel, ValidationError

from .answers import (
    REFUSALS,
    REJECTIONS,
    ApiError,
    Attempt,
    CommandQuarantinedError,
    CommandRejectedError,
    OutcomePendingError,
    RateLimitedError,
    UnavailableError,
)
from .envelope import CONTENT_TYPE, to_event
from .errors import InvalidMessageError
from .methods import CommandMethods, NewCommand
from .vocabulary import Outcome, QuarantineCode

MAX_WAIT_S = 60
"""Seconds that the server waits for an outcome at most."""

_TOKEN = re.compile("[!-~]+")  # printable ASCII without the space

_INVALID = frozenset[str](QuarantineCode)
_SUCCESS = (httpx.codes.OK, httpx.codes.ACCEPTED)


class _Sent(BaseModel):
    """What the server says of a command. Without an outcome it is not handled yet."""

    id: str
    outcome: str | None = None
    code: str | None = None
    detail: str | None = None
    attempt: Attempt | None = None


class _Answer(BaseModel):
    commands: tuple[_Sent]


class _Problem(BaseModel):
    code: str
    detail: str = ""


class _NewCommands(CommandMethods[NewCommand]):
    def _publish_new(self, new: NewCommand) -> NewCommand:
        return new


_new = _NewCommands()


class Client:
    """Sends commands over HTTP, and waits for what becomes of them.

    Threads may share one. A forked process makes its own.

    Each method takes the fields of the `Publisher`'s method of the same name, and `wait`.

    Parameters:
        base_url: of `invigilator web`, such as `https://invigilator.example`.
        token: as `invigilator token new` has printed it; None where the server asks for none.
        timeout_s: seconds that the server has to answer, beyond those that it was told to wait.
        transport: httpx's, for tests, proxies and certificates.

    Raises:
        ValueError: the token cannot be one. The text does not quote it.

    Raises, in every method:
        ValueError: `wait` is no whole number from 1 to 60. No command was sent.
        InvalidMessageError: an argument is wrong. No command was sent.
        CommandRejectedError: the command was refused. There is a class for each code: `IllegalTransitionError`,
            `AttemptNotFoundError` and the others of `events.answers`.
        CommandQuarantinedError: it waits for a person.
        OutcomePendingError: there is no outcome within `wait` seconds. The command will be handled.
        UnavailableError: nobody knows whether the command has arrived. Send it again with the same id.
        ApiError: the call was refused: `UnauthorizedError`, `NotAllowedError`, `RateLimitedError`.

    Example:
        >>> def answer(request):
        ...     attempt = {
        ...         "id": "018f", "exam_id": "7", "user_id": "42", "attempt_code": "a1", "status": "submitted",
        ...         "taking_as_proctored": True, "is_sample_attempt": False, "external_id": None,
        ...         "started_at": None, "completed_at": "2026-03-01T09:00:00Z", "version": 2, "removed_at": None,
        ...     }
        ...     sent = {"source": "/lms/acme", "id": "5f0c", "outcome": "applied", "attempt": attempt}
        ...     return httpx.Response(200, json={"commands": [sent]})
        >>> with Client("https://invigilator.example", "token", transport=httpx.MockTransport(answer)) as client:
        ...     client.update_status(exam_id="7", user_id="42", to_status="submitted", wait=5).status
        'submitted'
    """

    def __init__(
        self,
        base_url: str,
        token: str | None = None,
        *,
        timeout_s: float = 10,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        if token is not None and not _TOKEN.fullmatch(token):
            raise ValueError("token must be printable ASCII without spaces; does it end with a line break?")
        self._timeout_s = timeout_s
        headers = {"Content-Type": CONTENT_TYPE}
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        self._http = httpx.Client(base_url=base_url, headers=headers, transport=transport)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def create_attempt(self, *, wait: int = 5, **fields: Any) -> Attempt | None:
        """Create an attempt, and return it. See `Client` and `CommandMethods.create_attempt`."""
        return self._send(_new.create_attempt(**fields), wait)

    def update_status(self, *, wait: int = 5, **fields: Any) -> Attempt | None:
        """Give an attempt another status, and return it. See `Client` and `CommandMethods.update_status`.

        An attempt that has the status already, or whose command was ignored, is returned, too.

        Parameters:
            wait: whole seconds to wait for the outcome, from 1 to 60.

        Returns:
            the attempt; None when there is none and `if_missing` is `ignore`.
        """
        return self._send(_new.update_status(**fields), wait)

    def remove_attempt(self, *, wait: int = 5, **fields: Any) -> Attempt | None:
        """Remove an attempt, and return it. See `Client` and `CommandMethods.remove_attempt`."""
        return self._send(_new.remove_attempt(**fields), wait)

    def upsert_course(self, *, wait: int = 5, **fields: Any) -> None:
        """Tell of a course. See `Client` and `CommandMethods.upsert_course`."""
        self._send(_new.upsert_course(**fields), wait)

    def upsert_exam(self, *, wait: int = 5, **fields: Any) -> None:
        """Tell of an exam. See `Client` and `CommandMethods.upsert_exam`."""
        self._send(_new.upsert_exam(**fields), wait)

    def upsert_learner(self, *, wait: int = 5, **fields: Any) -> None:
        """Tell of a learner. See `Client` and `CommandMethods.upsert_learner`."""
        self._send(_new.upsert_learner(**fields), wait)

    def _send(self, new: NewCommand, wait: int) -> Attempt | None:
        # The server ignores `wait=1.5` and `wait=True`, and does not wait.
        if type(wait) is not int or not 1 <= wait <= MAX_WAIT_S:
            raise ValueError(f"wait must be a whole number of seconds from 1 to {MAX_WAIT_S}")
        command = new.made_by("")
        event = to_event(command)
        del event["source"]  # it is the token's
        response = self._post(event, command.id, wait)
        if response.status_code not in _SUCCESS:
            raise _problem(response, command.id)
        try:
            [sent] = _Answer.model_validate_json(response.content).commands
        except ValidationError:
            raise _not_ours(response) from None
        return _attempt(sent)

    def _post(self, event: dict[str, Any], command_id: str, wait: int) -> httpx.Response:
        try:
            return self._http.post(
                "/v1/commands",
                content=json.dumps(event),
                headers={"Prefer": f"wait={wait}"},
                timeout=wait + self._timeout_s,
            )
        except httpx.RequestError as error:
            raise UnavailableError(
                f"the server did not answer ({type(error).__name__}); check base_url, and send the command again "
                "with the same id",
                command_id,
            ) from error


def _attempt(sent: _Sent) -> Attempt | None:
    match sent.outcome:
        case None:
            raise OutcomePendingError(sent.id)
        case Outcome.REJECTED:
            reason = sent.code or Outcome.REJECTED
            kind = REJECTIONS.get(reason, CommandRejectedError)
            raise kind(reason, sent.detail, sent.id, sent.attempt)
        case CommandQuarantinedError.code:
            raise CommandQuarantinedError(sent.code or sent.outcome, sent.detail, sent.id, sent.attempt)
    return sent.attempt


def _problem(response: httpx.Response, command_id: str) -> Exception:
    try:
        problem = _Problem.model_validate_json(response.content)
    except ValidationError:
        problem = _Problem(code="error", detail=f"HTTP {response.status_code}; check base_url")
    if response.is_server_error:
        return UnavailableError(f"{problem.detail}; send the command again with the same id", command_id)
    if problem.code in REFUSALS:
        return _refusal(response, problem)
    if problem.code in _INVALID:
        return InvalidMessageError(QuarantineCode(problem.code), problem.detail)
    return ApiError(response.status_code, problem.code, problem.detail)


def _refusal(response: httpx.Response, problem: _Problem) -> ApiError:
    error = REFUSALS[problem.code](response.status_code, problem.code, problem.detail)
    if isinstance(error, RateLimitedError):
        seconds = response.headers.get("Retry-After", "")
        error.retry_after_s = float(seconds) if seconds.isdigit() else None
    return error


def _not_ours(response: httpx.Response) -> ApiError:
    return ApiError(response.status_code, "error", "the answer cannot be read; check base_url")
