"""Erasing a learner."""

from http import HTTPStatus

from starlette.exceptions import HTTPException
from starlette.responses import Response

from invigilator.acts import erasure
from invigilator.acts.transactions import acting
from invigilator.web.console.pages.acting import ask, done, reason_of
from invigilator.web.console.rendering import address
from invigilator.web.console.site import Site, Visit


def ask_to_erase(site: Site, visit: Visit) -> Response:
    """Ask why a learner is to be erased."""
    user_id = _named(visit.asked("user_id"))
    return ask(
        site,
        visit,
        title=f"Erase learner {user_id}",
        question="Names and addresses go, and pending mails are cancelled. The record stays, under the id. "
        "Nobody can undo it.",
        hidden=[("user_id", user_id)],
        button="Erase names and addresses",
        back=address("learner", user_id=user_id),
    )


def erase(site: Site, visit: Visit) -> Response:
    """Erase a learner."""
    user_id, reason = _named(visit.sent("user_id")), reason_of(visit)
    with acting(site.engine) as connection:
        erasure.erase(connection, user_id, visit.person.actor(), reason)
    return done(
        site,
        visit,
        title="Erase: done",
        sentence=f"The names and addresses of learner {user_id} are gone.",
        refused={},
        back=address("learner", user_id=user_id),
    )


def _named(user_id: str | None) -> str:
    if not user_id:
        raise HTTPException(HTTPStatus.BAD_REQUEST, "Name the learner.")
    return user_id
