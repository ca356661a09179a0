"""The overview: what is wrong, and what waits."""

from collections.abc import Sequence
from datetime import timedelta

from sqlalchemy import Connection
from starlette.responses import Response

from db import (
    backlog,
    bulk,
    causes,
    deliveries,
    failures,
    samples,
    totals,
)
from db.deliveries import PREFIX
from events.errors import InvigilatorError
from invigilator.web.console import charts
from invigilator.web.console.charts import Chart
from invigilator.web.console.site import Site, Visit
from invigilator.web.reading import reading
from worker.health.facts import Facts
from worker.health.judgement import Judgement, judge
from worker.kinds import EffectKind

RECENT_ACTS = 5
CAUSES = 5
"""Of so many causes, the most frequent, the failures are drawn."""
BACK = timedelta(hours=6)
EVERY = timedelta(minutes=15)


def shown(site: Site, visit: Visit) -> Response:
    """What is wrong, in one sentence, and then the numbers."""
    facts, judgement = _judged(site)
    with reading(site.engine) as connection:
        return site.page(
            visit,
            "overview.html",
            judgement=judgement,
            sentence=sentence(judgement),
            facts=facts,
            causes=causes.failing(connection),
            feeds=deliveries.feeds(connection),
            acts=bulk.newest(connection, RECENT_ACTS),
            kinds=sorted({*EffectKind, *facts.backlog}),
            nothing=backlog.NOTHING,
            charts=[_tries(connection), _failures(connection)],
            paused={one.kind: one for one in facts.pauses},
            webhook_prefix=PREFIX,
        )


def _tries(connection: Connection) -> Chart:
    grown = samples.increases(samples.series(connection, totals.TRIES, BACK))
    by_result = charts.summed(grown, place=1)
    names = ("done", "retry", "failed")
    return charts.stacked(
        "Tries in the last 6 hours, by result", {one: by_result.get(one, {}) for one in names}
    )


def _failures(connection: Connection) -> Chart:
    found = failures.by_cause(connection, BACK, EVERY)
    most = sorted(found, key=lambda cause: -sum(found[cause].values()))[:CAUSES]
    return charts.stacked(
        "Failed tries in the last 6 hours, by cause", {cause: found[cause] for cause in most}
    )


def _judged(site: Site) -> tuple[Facts, Judgement]:
    try:
        facts = site.health()
    except InvigilatorError as error:
        facts = site.known()
        judged = judge(facts)
        return facts, Judgement([str(error), *judged.broken], judged.needs)
    return facts, judge(facts)


def sentence(judgement: Judgement) -> str:
    """Return what is wrong, the worst of it first.

    Example:
        >>> sentence(Judgement(needs=["2 effect(s) failed", "1 message(s) in quarantine"]))
        'It works, and needs somebody: 2 effect(s) failed, and 1 message(s) in quarantine.'
        >>> sentence(Judgement())
        'Everything works, and nothing needs anybody.'
    """
    if judgement.broken:
        return f"It does not work: {_listed([*judgement.broken, *judgement.needs])}."
    if judgement.needs:
        return f"It works, and needs somebody: {_listed(judgement.needs)}."
    return "Everything works, and nothing needs anybody."


def _listed(parts: Sequence[str]) -> str:
    *others, last = parts
    return f"{', '.join(others)}, and {last}" if others else last
