"""Switching webhooks on and off, and telling a subscriber again."""

from http import HTTPStatus

from starlette.exceptions import HTTPException
from starlette.responses import RedirectResponse, Response

from invigilator.acts import events, webhooks
from invigilator.acts.actor import Action
from invigilator.acts.transactions import acting
from invigilator.web.console.pages.acting import ask, done, reason_of
from invigilator.web.console.pages.messages import number_from
from invigilator.web.console.rendering import address
from invigilator.web.console.site import Site, Visit

_QUESTIONS = {
    Action.WEBHOOK_ON: "What it is owed is sent at once.",
    Action.WEBHOOK_OFF: "What it is owed waits until somebody switches it on.",
}
_SWITCHES = {Action.WEBHOOK_ON: webhooks.switch_on, Action.WEBHOOK_OFF: webhooks.switch_off}


def ask_to_switch(site: Site, visit: Visit, action: Action) -> Response:
    """Ask why an endpoint is to be switched."""
    name, word = _named(visit.asked("name")), action.removeprefix("webhook ")
    title = f"Switch the webhook {name} {word}"
    return ask(
        site,
        visit,
        title=title,
        question=f"{title}? {_QUESTIONS[action]}",
        hidden=[("name", name)],
        button=f"Switch it {word}",
        back=address("webhook", name=name),
    )


def switch(site: Site, visit: Visit, action: Action) -> Response:
    """Switch an endpoint."""
    name, reason = _named(visit.sent("name")), reason_of(visit)
    with acting(site.engine) as connection:
        _SWITCHES[action](connection, visit.person.actor(), name, reason)
    return RedirectResponse(address("webhook", name=name), HTTPStatus.SEE_OTHER)


def ask_to_replay(site: Site, visit: Visit) -> Response:
    """Ask from where on a subscriber is to be told again."""
    name = _named(visit.asked("name"))
    return ask(
        site,
        visit,
        title=f"Tell {name} again",
        question=f"Tell {name} again what comes after a position? It gets events for a second time.",
        hidden=[("name", name)],
        button="Tell it again",
        back=address("webhooks"),
        fields=[{"name": "after", "label": "After which position"}],
    )


def replay(site: Site, visit: Visit) -> Response:
    """Tell a subscriber again."""
    name, reason = _named(visit.sent("name")), reason_of(visit)
    after = number_from("after", visit.sent("after"))
    with acting(site.engine) as connection:
        events.replay(connection, visit.person.actor(), name, after, reason)
    sentence = f"{name} is told again what comes after the position {after}."
    return done(
        site, visit, title="Replay events: done", sentence=sentence, refused={}, back=address("webhooks")
    )


def _named(name: str | None) -> str:
    if not name:
        raise HTTPException(HTTPStatus.BAD_REQUEST, "name: must be that of a webhook or a feed.")
    return name
