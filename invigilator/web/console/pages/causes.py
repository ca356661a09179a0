"""Why effects fail: all causes, and one with the effects that fail because of it."""

from http import HTTPStatus

from starlette.exceptions import HTTPException
from starlette.responses import Response

from db import causes, effect_filters, waiting
from db.effect_filters import FAILING, Filter
from invigilator.web.console.pages.effects import label_of
from invigilator.web.console.site import PAGE, Site, Visit
from invigilator.web.reading import reading
from worker.kinds import QUEUES


def listed(site: Site, visit: Visit) -> Response:
    """The causes of what has failed, and of what is tried again, the most frequent first."""
    with reading(site.engine) as connection:
        found = causes.failing(connection)
    return site.page(visit, "causes.html", causes=causes.by_cause(found))


def shown(site: Site, visit: Visit) -> Response:
    """One cause, and the newest effects that fail because of it."""
    cause_id = visit.asked("id")
    with reading(site.engine) as connection:
        rows = [one for one in causes.failing(connection) if one["cause"] == cause_id] if cause_id else []
        known = causes.find(connection, cause_id) if cause_id else None
        if known is None:
            raise HTTPException(HTTPStatus.NOT_FOUND, "There is no such cause. Its id has 32 digits.")
        circuits = waiting.open_circuits(connection)
        wanted = Filter(states=tuple(FAILING), cause=cause_id)
        page = effect_filters.page(connection, wanted, limit=PAGE)
    # A webhook has a circuit of its own.
    called = {QUEUES.get(known["kind"]), *(one["subscriber"] for one in page.effects)}
    return site.page(
        visit,
        "cause.html",
        cause=known,
        rows=rows,
        untried=sum(one["untried"] for one in rows),
        circuits=[one for one in circuits if one.queue in called],
        effects=[{**one, "label": label_of(one)} for one in page.effects],
    )
