"""The overview: what is wrong, and what waits."""

from starlette.responses import Response

from db import lookups
from invigilator.web.console.site import Site, Visit
from invigilator.web.reading import reading


def shown(site: Site, visit: Visit) -> Response:
    """What is wrong, in one sentence, and then the numbers."""
    with reading(site.engine) as connection:
        circuits = lookups.open_circuits(connection)
        quarantined = lookups.count_quarantined(connection)
    return site.page(visit, "overview.html", circuits=circuits, quarantined=quarantined)
