"""What the record holds: attempts, commands, and what an id names."""

from http import HTTPStatus
from typing import Any

from starlette.exceptions import HTTPException
from starlette.responses import RedirectResponse, Response

from db import lookups, search
from db.search import Found, Kind
from events.vocabulary import Status
from invigilator.web.console.pages.effects import uuid_of
from invigilator.web.console.rendering import address
from invigilator.web.console.site import PAGE, Site, Visit
from invigilator.web.reading import reading


def attempt(site: Site, visit: Visit) -> Response:
    """An attempt with its transitions and effects: by its code, or the one of a learner at an exam."""
    wanted: dict[str, Any] = {name: visit.asked(name) for name in ("code", "exam_id", "user_id")}
    if not any(wanted.values()):
        raise HTTPException(HTTPStatus.BAD_REQUEST, "Name the attempt: its code, or an exam and a learner.")
    with reading(site.engine) as connection:
        found = lookups.attempt_history(connection, **wanted)
    if found["attempt"] is None:
        raise HTTPException(HTTPStatus.NOT_FOUND, "There is no such attempt.")
    return site.page(visit, "attempt.html", **found)


def attempts(site: Site, visit: Visit) -> Response:
    """Attempts of an exam, a course or a learner, oldest first."""
    wanted = {name: visit.asked(name) for name in ("exam_id", "course_id", "user_id")}
    status = visit.asked("status")
    if status is not None and status not in list(Status):
        raise HTTPException(HTTPStatus.BAD_REQUEST, f"status: must be one of {', '.join(Status)}.")
    with reading(site.engine) as connection:
        page = lookups.attempts(
            connection,
            **wanted,
            status=None if status is None else Status(status),
            removed=None,
            after=uuid_of(visit, "after"),
            limit=PAGE,
        )
    return site.page(
        visit,
        "attempts.html",
        attempts=page.attempts,
        next=page.next,
        query={**wanted, "status": status},
        statuses=tuple(Status),
    )


def command(site: Site, visit: Visit) -> Response:
    """What became of a command."""
    source, command_id = visit.asked("source"), visit.asked("id")
    if source is None or command_id is None:
        raise HTTPException(HTTPStatus.BAD_REQUEST, "Name the command: its source and its id.")
    with reading(site.engine) as connection:
        found = lookups.command(connection, source, command_id)
    if found is None:
        raise HTTPException(
            HTTPStatus.NOT_FOUND, "Nobody has seen this command. Its inbox may have been pruned."
        )
    return site.page(visit, "command.html", command=found)


def commands(site: Site, visit: Visit) -> Response:
    """The commands that were handled last, newest first."""
    with reading(site.engine) as connection:
        found = list(lookups.commands(connection, limit=PAGE))
    return site.page(visit, "commands.html", commands=found)


def searched(site: Site, visit: Visit) -> Response:
    """What an id names. The page of it where it names one thing."""
    text = visit.asked("q")
    found: list[Found] = []
    if text is not None:
        with reading(site.engine) as connection:
            found = list(search.find(connection, text))
    if len(found) == 1:
        return RedirectResponse(place_of(found[0]), HTTPStatus.SEE_OTHER)
    results = [{"kind": one.kind, "id": one.id, "label": one.label, "place": place_of(one)} for one in found]
    return site.page(visit, "search.html", text=text, results=results)


def place_of(found: Found) -> str:
    """Return the address of what was found."""
    match found.kind:
        case Kind.LEARNER:
            return address("learner", user_id=found.id)
        case Kind.EXAM:
            return address("attempts", exam_id=found.id)
        case Kind.COURSE:
            return address("attempts", course_id=found.id)
        case Kind.ATTEMPT:
            return address("attempt", code=found.id)
        case Kind.EFFECT:
            return address("effect", id=found.id)
        case Kind.COMMAND:
            return address("command", source=found.source, id=found.id)
        case Kind.QUARANTINED:
            return address("quarantined", id=found.id)
