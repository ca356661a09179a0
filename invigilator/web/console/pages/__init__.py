"""The pages of the console, and the table of all its routes."""

from collections.abc import Sequence
from functools import partial

from invigilator.acts.actor import Action
from invigilator.web.console.doors import Door, Page
from invigilator.web.console.pages import (
    acting_effects,
    acting_kinds,
    acting_learner,
    acting_messages,
    acting_told,
    audit,
    bulk,
    causes,
    effects,
    learner,
    messages,
    overview,
    record,
    told,
)

OVERVIEW_S = 10.0
"""It renews itself as often, and is looked at when something is wrong."""


def _both(path: str, ask: Page, do: Page, needs: Action) -> tuple[Door, Door]:
    """The page that asks, and the form that it sends."""
    return Door("GET", path, ask, needs), Door("POST", path, do, needs)


def _on_effects(action: Action) -> tuple[Door, Door]:
    ask, do = (partial(page, action=action) for page in (acting_effects.ask_for, acting_effects.do))
    return _both(f"/acts/{action}", ask, do, action)


def _on_messages(action: Action) -> tuple[Door, Door]:
    ask, do = (partial(page, action=action) for page in (acting_messages.ask_for, acting_messages.do))
    return _both(f"/quarantine/{action}", ask, do, action)


def _on_webhooks(path: str, action: Action) -> tuple[Door, Door]:
    ask, do = (partial(page, action=action) for page in (acting_told.ask_to_switch, acting_told.switch))
    return _both(path, ask, do, action)


DOORS: Sequence[Door] = (
    Door("GET", "/", overview.shown, answer_s=OVERVIEW_S),
    Door("GET", "/act", bulk.changed),
    Door("GET", "/attempt", record.attempt),
    Door("GET", "/attempts", record.attempts),
    Door("GET", "/audit", audit.listed),
    Door("GET", "/bulk", bulk.progress),
    Door("GET", "/cause", causes.shown),
    Door("GET", "/causes", causes.listed),
    Door("GET", "/command", record.command),
    Door("GET", "/commands", record.commands),
    Door("GET", "/effect", effects.shown),
    Door("GET", "/effects", effects.listed),
    Door("GET", "/learner", learner.shown),
    Door("GET", "/learner/printed", learner.printed),
    Door("GET", "/quarantine", messages.listed),
    Door("GET", "/quarantined", messages.shown),
    Door("GET", "/search", record.searched),
    Door("GET", "/webhook", told.webhook),
    Door("GET", "/webhooks", told.webhooks),
    *_on_effects(Action.RETRY),
    *_on_effects(Action.CANCEL),
    *_on_messages(Action.REPLAY),
    *_on_messages(Action.DISCARD),
    *_both("/pause", acting_kinds.ask_to_pause, acting_kinds.pause, Action.PAUSE),
    *_both("/resume", acting_kinds.ask_to_resume, acting_kinds.resume, Action.RESUME),
    *_both("/learner/erase", acting_learner.ask_to_erase, acting_learner.erase, Action.ERASE),
    *_on_webhooks("/webhook/on", Action.WEBHOOK_ON),
    *_on_webhooks("/webhook/off", Action.WEBHOOK_OFF),
    *_both("/events/replay", acting_told.ask_to_replay, acting_told.replay, Action.REPLAY_EVENTS),
    # Every act in bulk is an operator's.
    Door("POST", "/bulk/stop", bulk.stop, Action.STOP),
)
"""Who may use a route stands nowhere else. What is not here does not exist, but for the routes of the sign-in."""
