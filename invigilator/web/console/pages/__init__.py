"""The pages of the console, and the table of all its routes."""

from collections.abc import Sequence

from invigilator.web.console.doors import Door
from invigilator.web.console.pages import audit, effects, learner, messages, overview, record, told

DOORS: Sequence[Door] = (
    Door("GET", "/", overview.shown),
    Door("GET", "/attempt", record.attempt),
    Door("GET", "/attempts", record.attempts),
    Door("GET", "/audit", audit.listed),
    Door("GET", "/command", record.command),
    Door("GET", "/commands", record.commands),
    Door("GET", "/effect", effects.shown),
    Door("GET", "/effects", effects.listed),
    Door("GET", "/learner", learner.shown),
    Door("GET", "/quarantine", messages.listed),
    Door("GET", "/quarantined", messages.shown),
    Door("GET", "/search", record.searched),
    Door("GET", "/webhook", told.webhook),
    Door("GET", "/webhooks", told.webhooks),
)
"""Who may use a route stands nowhere else. What is not here does not exist, but for the routes of the sign-in."""
