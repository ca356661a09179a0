"""The audit: what people did."""

from typing import Any

from starlette.responses import Response

from db import acts
from invigilator.web.console.pages.effects import uuid_of
from invigilator.web.console.pages.messages import number_of
from invigilator.web.console.site import PAGE, Site, Visit
from invigilator.web.reading import reading


def listed(site: Site, visit: Visit) -> Response:
    """The steps of acts, newest first."""
    wanted: dict[str, Any] = {
        "act_id": uuid_of(visit, "act_id"),
        "user_id": visit.asked("user_id"),
        "effect_id": uuid_of(visit, "effect_id"),
    }
    with reading(site.engine) as connection:
        found = list(acts.acts(connection, **wanted, before=number_of(visit, "before"), limit=PAGE + 1))
    rows = found[:PAGE]
    return site.page(
        visit,
        "audit.html",
        rows=rows,
        query=wanted,
        next=rows[-1]["sequence"] if len(found) > PAGE else None,
    )
