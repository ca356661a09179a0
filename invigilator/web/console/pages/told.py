"""Who is told of events: the feeds and the webhooks."""

from http import HTTPStatus

from starlette.exceptions import HTTPException
from starlette.responses import Response

from db import deliveries, effect_filters
from db.effect_filters import Filter
from invigilator.web.console.pages.effects import label_of
from invigilator.web.console.site import Site, Visit
from invigilator.web.reading import reading

RECENT = 20


def webhooks(site: Site, visit: Visit) -> Response:
    """The webhooks with what they are owed, and the feeds with how far they have come."""
    with reading(site.engine) as connection:
        endpoints = deliveries.endpoints(connection)
        feeds = deliveries.feeds(connection)
    return site.page(visit, "webhooks.html", endpoints=endpoints, feeds=feeds, prefix=deliveries.PREFIX)


def webhook(site: Site, visit: Visit) -> Response:
    """One endpoint, and its last deliveries."""
    name = f"{deliveries.PREFIX}{visit.asked('name')}"
    with reading(site.engine) as connection:
        endpoint = next((one for one in deliveries.endpoints(connection) if one.name == name), None)
        if endpoint is None:
            raise HTTPException(HTTPStatus.NOT_FOUND, "There is no such webhook.")
        failed = effect_filters.page(connection, Filter(states=("failed",), subscriber=name), limit=RECENT)
    return site.page(
        visit,
        "webhook.html",
        endpoint=endpoint,
        short=name.removeprefix(deliveries.PREFIX),
        failed=[{**one, "label": label_of(one)} for one in failed.effects],
    )
