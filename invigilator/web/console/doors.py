"""Every route of the console, and who may use it: one table, from which the routes are made."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import Literal

from anyio import fail_after
from anyio.to_thread import run_sync
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import FormData
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from invigilator.acts.actor import ACTIONS, Action, may
from invigilator.web.console.guards import check_form, form_token
from invigilator.web.console.rendering import address
from invigilator.web.console.signin import SignIn
from invigilator.web.console.site import Site, Visit

MAX_FIELDS = 2_000
ANSWER_S = 60.0
"""Seconds after which a page is given up. A database that is frozen keeps no time limit of its own."""

Page = Callable[[Site, Visit], Response]


@dataclass(frozen=True, slots=True)
class Door:
    """A route.

    Parameters:
        path: below that of the console.
        page: answers, in a thread of the pool.
        needs: what somebody must be allowed to do. None for what everybody with a role may look at.
        answer_s: seconds after which the page is given up. A form is never: it may have changed something.
    """

    method: Literal["GET", "POST"]
    path: str
    page: Page
    needs: Action | None = None
    answer_s: float = ANSWER_S


def routes(doors: Sequence[Door], site: Site, sign_in: SignIn) -> list[Route]:
    """Return the routes, each of which lets in who may use it."""
    return [Route(door.path, _guarded(door, site, sign_in), methods=[door.method]) for door in doors]


def _guarded(door: Door, site: Site, sign_in: SignIn) -> Callable[[Request], object]:
    async def endpoint(request: Request) -> Response:
        person = sign_in.person(request)
        if person is None:
            return _to_sign_in(request)
        if door.needs is not None and not may(person.role, door.needs):
            raise HTTPException(
                HTTPStatus.FORBIDDEN,
                f"This needs the role {ACTIONS[door.needs]}. You have the role {person.role}. Nothing was changed.",
            )
        form = FormData()
        if door.method == "POST":
            form = await request.form(max_files=0, max_fields=MAX_FIELDS)
            check_form(request, person.name, str(form.get("csrf", "")))
        token = form_token(request, person.name)
        visit = Visit(person, request.url.path, request.query_params, form, token)
        if door.method == "POST":
            return await run_in_threadpool(door.page, site, visit)
        return await _looked(door, site, visit)

    return endpoint


async def _looked(door: Door, site: Site, visit: Visit) -> Response:
    try:
        with fail_after(door.answer_s):
            return await run_sync(partial(door.page, site, visit), abandon_on_cancel=True)
    except TimeoutError:
        raise HTTPException(
            HTTPStatus.SERVICE_UNAVAILABLE, "The database does not answer. Load the page again later."
        ) from None


def _to_sign_in(request: Request) -> Response:
    if request.method == "POST":
        raise HTTPException(HTTPStatus.UNAUTHORIZED, "Your sign-in has ended. Sign in, and do it again.")
    path = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    target = address("sign-in", next=path)
    if "hx-request" in request.headers:
        return Response(headers={"HX-Redirect": target})
    return RedirectResponse(target, HTTPStatus.SEE_OTHER)
