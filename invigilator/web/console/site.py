"""What the pages of the console have in common."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from sqlalchemy import Engine
from starlette.datastructures import FormData, QueryParams
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse

from invigilator.acts.actor import Action, may
from invigilator.acts.quarantine import RawPublisher
from invigilator.web.console.people import Person
from invigilator.web.console.rendering import render
from invigilator.web.console.running import Runner
from worker.health.facts import Facts

PAGE = 50
"""Rows of a page."""


@dataclass(frozen=True, slots=True)
class Visit:
    """A request of somebody who may make it.

    Parameters:
        path: of the page, and `query` what follows it.
        form: what was sent. Empty for a page that is only looked at.
        token: what the forms of the page hold.
    """

    person: Person
    path: str
    query: QueryParams
    form: FormData
    token: str

    def may(self, action: str) -> bool:
        """Return whether the person may do something."""
        return may(self.person.role, Action(action))

    def sent(self, name: str) -> str:
        """Return a field of the form, without space around it. Empty when there is none."""
        return str(self.form.get(name, "")).strip()

    def only(self, *names: str) -> None:
        """Refuse an address with a parameter of any other name: a filter that is misspelt would mean more.

        Raises:
            HTTPException: there is one.
        """
        if unknown := sorted(set(self.query) - set(names)):
            known = ", ".join(names)
            raise HTTPException(
                HTTPStatus.BAD_REQUEST, f"{unknown[0]}: is not known here; there are: {known}."
            )

    def asked(self, name: str) -> str | None:
        """Return a parameter of the address, without space around it. None for an empty one, too.

        Raises:
            HTTPException: it is no text that could be stored.
        """
        value = self.query.get(name, "").strip()
        if "\x00" in value or len(value) > MAX_ASKED:
            raise HTTPException(HTTPStatus.BAD_REQUEST, f"{name}: is no text that anything could have here.")
        return value or None


MAX_ASKED = 1_000


@dataclass(frozen=True, slots=True)
class Site:
    """What pages are made from.

    Parameters:
        engine: of the database.
        health: reads what there is to know about the health of the system.
        known: reads what the database knows of it, for when the broker is away.
        publisher: opens a publisher of messages as they are.
        runner: of acts in bulk.
        notice: what each page says of the sign-in. None where there is nothing to say.
        signs_out: whether people can sign out.
    """

    engine: Engine
    health: Callable[[], Facts]
    known: Callable[[], Facts]
    publisher: Callable[[], AbstractContextManager[RawPublisher]]
    runner: Runner
    notice: str | None
    signs_out: bool

    def page(self, visit: Visit, template: str, **values: Any) -> HTMLResponse:
        """Return a page."""
        return render(template, {"site": self, "visit": visit, **values})
