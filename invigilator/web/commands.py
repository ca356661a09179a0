"""`GET /v1/commands`: what became of a command."""

from functools import partial
from typing import Any

from fastapi import APIRouter

from db import lookups
from invigilator.web.access import Access
from invigilator.web.documents import HandledCommand, QuarantinedCommand
from invigilator.web.problems import not_found
from invigilator.web.reading import Id, Reader, reading_router


def routes(reader: Reader, access: Access) -> APIRouter:
    """Return the route of a command's outcome."""
    router = reading_router(access)

    @router.get("/v1/commands", response_model=HandledCommand | QuarantinedCommand)
    def command(source: Id, id: Id) -> Any:  # noqa: A002 - the parameter's name
        """What became of a command. One that is in quarantine has the outcome `quarantined`."""
        found = reader.ask(partial(lookups.command, source=source, command_id=id))
        if found is None:
            raise not_found("no command with this source and id was handled; it may still be queued")
        return found

    return router
