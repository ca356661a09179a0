"""Reads the bodies of calls, within limits of size and time, and the commands in them."""

import asyncio
import json
from collections.abc import Callable, Coroutine, Mapping
from email.message import Message
from http import HTTPStatus
from typing import Any

from fastapi import Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.routing import APIRoute
from starlette.requests import ClientDisconnect
from starlette.types import Message as HttpMessage

from events.commands import Command
from events.envelope import MAX_BODY_BYTES, filled_in, read_event, read_json, render
from events.errors import InvalidMessageError
from events.vocabulary import QuarantineCode
from invigilator.web.problems import ProblemCode, ProblemError
from invigilator.web.tokens import FILE, Sender

MAX_COMMANDS = 100
MAX_CALL_BYTES = 7 * 1024 * 1024
READ_TIMEOUT_S = 30.0
BATCH_TYPE = "application/cloudevents-batch+json"
MEDIA_TYPES = ("application/json", "application/cloudevents+json", BATCH_TYPE)

UTF_8 = "utf-8"
CHARSETS = (UTF_8, "utf8", "us-ascii")

Place = Mapping[str, int]
"""Which command of several: what a problem says of it."""
NOWHERE: Place = {}

Attributes = dict[str, str | None]
"""The attributes that a call gives to all its commands."""

Signed = tuple[Command, str | None]
"""A command, and the key that signs it: None where commands are not signed."""

SigningKey = Callable[[Command], str | None]
"""Returns the key of a command, and raises `InvalidMessageError` for one that would not be accepted."""


class BoundedRoute(APIRoute):
    """A route whose body is read within the limits of a single command. FastAPI itself reads whatever comes.

    It reads the body before it asks who calls, so without limits anybody could fill the memory.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handle_read(request: Request) -> Response:
            body = await _read_body(request, MAX_BODY_BYTES)
            messages: list[HttpMessage] = [{"type": "http.request", "body": body}]

            async def receive() -> HttpMessage:
                return messages.pop() if messages else await request.receive()

            return await handle(Request(request.scope, receive))

        return handle_read


async def read_commands(
    request: Request, sender: Sender, signing_key: SigningKey, traceparent: str | None
) -> list[Signed]:
    """Read the commands of a call. What may be left out is filled in.

    Parameters:
        sender: whose commands they must be.
        signing_key: signs them.
        traceparent: the trace of the commands that name no other one.

    Raises:
        ProblemError: one of them is none, or may not be sent. `index` says which one of several.
    """
    _check_media_type(request)
    body = await _read_body(request, MAX_CALL_BYTES)
    # Some megabytes take a tenth of a second, in which nobody else would be answered.
    of_call = {"traceparent": traceparent}
    return await run_in_threadpool(_parse, body, sender, signing_key, of_call)


def _parse(body: bytes, sender: Sender, signing_key: SigningKey, of_call: Attributes) -> list[Signed]:
    try:
        document = read_json(body)
    except InvalidMessageError as error:
        raise _refused(error, HTTPStatus.BAD_REQUEST) from None
    if not isinstance(document, list):
        return [_read_command(document, sender, signing_key, of_call)]
    if not 1 <= len(document) <= MAX_COMMANDS:
        detail = f"an array must hold 1 to {MAX_COMMANDS} events"
        raise ProblemError(HTTPStatus.UNPROCESSABLE_ENTITY, QuarantineCode.NOT_CLOUDEVENT, detail)
    return [
        _read_command(event, sender, signing_key, of_call, {"index": index})
        for index, event in enumerate(document)
    ]


def _check_media_type(request: Request) -> None:
    header = Message()
    header["content-type"] = request.headers.get("content-type", "")
    if header.get_content_type() not in MEDIA_TYPES:
        raise _unsupported(f"must be one of {', '.join(MEDIA_TYPES)}")
    if header.get_content_charset(UTF_8) not in CHARSETS:
        raise _unsupported("the charset must be utf-8; leave it out, or send the body in UTF-8")


def _unsupported(what: str) -> ProblemError:
    return ProblemError(
        HTTPStatus.UNSUPPORTED_MEDIA_TYPE, ProblemCode.UNSUPPORTED_MEDIA_TYPE, f"content type: {what}"
    )


async def _read_body(request: Request, most: int) -> bytes:
    """Read the body of a call.

    Parameters:
        most: how many bytes it may have.

    Raises:
        ProblemError: it is longer, or takes too long.
    """
    body = bytearray()
    try:
        async with asyncio.timeout(READ_TIMEOUT_S):
            async for chunk in request.stream():
                body += chunk
                if len(body) > most:
                    raise _too_large(f"at most {most} bytes in a call; send several")
    except (TimeoutError, ClientDisconnect):
        detail = f"the body must arrive within {READ_TIMEOUT_S:g} s"
        raise ProblemError(HTTPStatus.REQUEST_TIMEOUT, ProblemCode.TOO_SLOW, detail) from None
    return bytes(body)


def _read_command(
    event: Any, sender: Sender, signing_key: SigningKey, of_call: Attributes, place: Place = NOWHERE
) -> Signed:
    try:
        text = json.dumps(event, ensure_ascii=False, separators=(",", ":"))
    except RecursionError:
        raise ProblemError(HTTPStatus.BAD_REQUEST, QuarantineCode.NOT_JSON, "nested too deeply") from None
    _check_size(text.encode("utf-8", "surrogatepass"), place)
    filled = filled_in(sender.source) | of_call | event if isinstance(event, dict) else event
    try:
        command = read_event(filled)
    except InvalidMessageError as error:
        raise _refused(error, HTTPStatus.UNPROCESSABLE_ENTITY, place) from None
    if command.source != sender.source:
        detail = f"source: is not that of the token; leave it out, or change it in the {FILE}"
        raise ProblemError(HTTPStatus.FORBIDDEN, ProblemCode.NOT_ALLOWED, detail, members=place)
    _check_size(render(command), place)  # with what was filled in
    try:
        sender.permit.check(command.data)
        return command, signing_key(command)
    except InvalidMessageError as error:
        raise _refused(error, HTTPStatus.FORBIDDEN, place) from None


def _check_size(body: bytes, place: Place = NOWHERE) -> None:
    if len(body) > MAX_BODY_BYTES:
        raise _too_large(f"{len(body)} bytes; at most {MAX_BODY_BYTES} are allowed for a command", place)


def _refused(error: InvalidMessageError, status: HTTPStatus, place: Place = NOWHERE) -> ProblemError:
    return ProblemError(status, error.reason, error.detail, members=place)


def _too_large(detail: str, place: Place = NOWHERE) -> ProblemError:
    return ProblemError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, ProblemCode.TOO_LARGE, detail, members=place)
