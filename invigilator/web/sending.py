"""`POST /v1/commands`: commands in, with or without waiting for their outcomes."""

from collections.abc import Sequence
from http import HTTPStatus
from typing import Annotated, Any, Protocol

from fastapi import APIRouter, Depends, Request, Response
from fastapi.concurrency import run_in_threadpool
from sqlalchemy.exc import DBAPIError

from db.errors import brief
from events.commands import Command
from events.errors import PublishError
from invigilator.web.access import Access
from invigilator.web.bodies import BATCH_TYPE, MEDIA_TYPES, Signed, SigningKey, read_commands
from invigilator.web.documents import SentCommand, SentCommands
from invigilator.web.openapi import BATCH_REF, EVENT_REF, problems
from invigilator.web.outcomes import Outcomes, Sent
from invigilator.web.preferences import parameter, wait_s
from invigilator.web.problems import unavailable
from invigilator.web.spans import note_status, serving
from invigilator.web.tokens import Caller, Scope
from worker.logs import get_logger
from worker.tracing import Span

logger = get_logger(__name__)

PATH = "/v1/commands"
_ONE_OR_MORE = {"schema": {"anyOf": [EVENT_REF, BATCH_REF]}}
_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            media_type: {"schema": BATCH_REF} if media_type == BATCH_TYPE else _ONE_OR_MORE
            for media_type in MEDIA_TYPES
        },
    },
    "parameters": [
        parameter("the outcomes"),
        {
            "name": "traceparent",
            "in": "header",
            "description": "The trace of the commands that name no other one (W3C Trace Context).",
            "schema": {"type": "string"},
        },
    ],
}


class CommandSink(Protocol):
    """Where commands go: `events.publisher.AsyncPublisher`."""

    async def publish(self, command: Command, *, signing_key: str | None, awaited: bool) -> None:
        """Publish a command. Raises `PublishError` if the broker does not take it."""
        ...


def routes(
    publisher: CommandSink,
    outcomes: Outcomes,
    access: Access,
    signing_key: SigningKey,
) -> APIRouter:
    """Return the route that takes commands.

    Parameters:
        signing_key: signs the commands.
    """
    router = APIRouter()

    @router.post(
        PATH,
        status_code=HTTPStatus.ACCEPTED,
        response_model=SentCommands,
        response_model_exclude_unset=True,
        responses={200: {"model": SentCommands}, **problems(400, 401, 403, 408, 413, 415, 422, 429, 503)},
        openapi_extra=_BODY,
    )
    async def send(
        request: Request,
        response: Response,
        caller: Annotated[Caller, Depends(access.needs(Scope.COMMAND))],
    ) -> Any:
        """Send a command, or up to 100 in an array.

        202 says that the broker has them. With `Prefer: wait=N` it is 200 as soon as all have an outcome.
        """
        with serving(request, PATH) as span:
            told = await _send(request, response, caller, span)
            note_status(span, response.status_code or HTTPStatus.ACCEPTED)
        return told

    async def _send(request: Request, response: Response, caller: Caller, span: Span) -> SentCommands:
        assert caller.sender is not None
        signed = await read_commands(request, caller.sender, signing_key, span.traceparent)
        commands = [command for command, _ in signed]
        seconds = wait_s(request, response)
        if seconds == 0:
            await _publish(publisher, signed, awaited=False)
            return SentCommands(commands=[_sent(command) for command in commands])
        before = await run_in_threadpool(outcomes.known, commands)
        waiting = [Sent(command, told) for command, told in zip(commands, before, strict=True)]
        with outcomes.joined(waiting):
            await _publish(publisher, signed, awaited=True)
            told = await _outcomes(outcomes, waiting, seconds)
        if all(one.outcome for one in told):
            response.status_code = HTTPStatus.OK
        return SentCommands(commands=told)

    return router


async def _publish(publisher: CommandSink, signed: Sequence[Signed], *, awaited: bool) -> None:
    try:
        for command, signing_key in signed:
            await publisher.publish(command, signing_key=signing_key, awaited=awaited)
    except PublishError as error:
        logger.warning("commands were not published", reason=str(error))
        # Some may have arrived. With the ids that were filled in the caller can send all of them again.
        raise unavailable(
            "the broker does not take commands now; send them again with the ids in `commands`",
            {"commands": [_sent(command).model_dump(exclude_unset=True) for command, _ in signed]},
        ) from None


async def _outcomes(outcomes: Outcomes, waiting: Sequence[Sent], seconds: float) -> list[SentCommand]:
    try:
        # A command that was handled before needs no `consume` to have its outcome.
        await run_in_threadpool(outcomes.look, waiting)
    except DBAPIError as error:
        # The broker has the commands. Without the ids that were filled in the caller would send them as new ones.
        logger.warning("outcomes cannot be read", reason=brief(error))
    else:
        await outcomes.wait(waiting, seconds)
    return [_told(one) for one in waiting]


def _sent(command: Command) -> SentCommand:
    return SentCommand(source=command.source, id=command.id)


def _told(one: Sent) -> SentCommand:
    answer = one.told
    if answer is None:
        return _sent(one.command)
    return SentCommand(
        source=one.command.source,
        id=one.command.id,
        outcome=answer.outcome,
        code=answer.code,
        detail=answer.detail,
        attempt=answer.attempt,
    )
