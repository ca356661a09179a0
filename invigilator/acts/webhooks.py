"""Switching webhooks on and off."""

from sqlalchemy import Connection

from db import deliveries
from events.errors import InvigilatorError
from invigilator.acts.actor import Action, Actor
from invigilator.acts.transactions import new_act, record

BY_A_PERSON = "switched off by a person"


class UnknownWebhookError(InvigilatorError):
    """There is no webhook of that name."""

    code = "unknown_webhook"


def switch_on(connection: Connection, actor: Actor, name: str, reason: str | None) -> None:
    """Switch a webhook on, in the caller's transaction. What it is owed is due now.

    Parameters:
        name: of its table in the file of subscriptions, such as `acme`.
        reason: why, in the actor's words.

    Raises:
        UnknownWebhookError: there is no such webhook.
    """
    before = _standing(connection, name)
    deliveries.switch_on(connection, f"{deliveries.PREFIX}{name}")
    _append(connection, actor, Action.WEBHOOK_ON, name, before, reason)


def switch_off(connection: Connection, actor: Actor, name: str, reason: str | None) -> None:
    """Switch a webhook off, in the caller's transaction. What it is owed waits. Otherwise as `switch_on`."""
    before = _standing(connection, name)
    deliveries.switch_off(connection, f"{deliveries.PREFIX}{name}", reason or BY_A_PERSON)
    _append(connection, actor, Action.WEBHOOK_OFF, name, before, reason)


def _standing(connection: Connection, name: str) -> deliveries.Endpoint:
    known = {one.name.removeprefix(deliveries.PREFIX): one for one in deliveries.endpoints(connection)}
    if name not in known:
        raise UnknownWebhookError(f"there is no webhook {name}; there are: {', '.join(known) or 'none'}")
    return known[name]


def _append(
    connection: Connection,
    actor: Actor,
    action: Action,
    name: str,
    before: deliveries.Endpoint,
    reason: str | None,
) -> None:
    since = None if before.off_since is None else before.off_since.isoformat()
    # Without the reason, which a person may have given: nothing can ever be taken out of an act's details.
    details = {
        "before": {"off_since": since},
        "after": {"off": action is Action.WEBHOOK_OFF},
    }
    act = new_act(actor, action, {"webhooks": [name]}, number=1, details=details, reason=reason)
    record(connection, act)
