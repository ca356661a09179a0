"""The overview: what is wrong, and what waits."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

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
from invigilator.web.console.rendering import address
from invigilator.web.console.site import Site, Visit
from invigilator.web.reading import reading
from worker.health.facts import Facts
from worker.health.judgement import Judgement, judge
from worker.kinds import QUEUES, EffectKind

RECENT_ACTS = 5
ANSWERS = 5
"""So many answers, the most frequent, are drawn each for itself."""
FIRST_SAMPLES = "The tries are counted every 5 minutes. The chart begins with the second count."
BACK = timedelta(hours=6)
EVERY = timedelta(minutes=15)


def shown(site: Site, visit: Visit) -> Response:
    """What is wrong, in one sentence, and then the numbers."""
    facts, judgement = _judged(site)
    moments = charts.spans(datetime.now(UTC), BACK, EVERY)
    with reading(site.engine) as connection:
        return site.page(
            visit,
            "overview.html",
            judgement=judgement,
            facts=facts,
            causes=causes.by_cause(causes.failing(connection)),
            feeds=deliveries.feeds(connection),
            acts=bulk.newest(connection, RECENT_ACTS),
            kinds=sorted({*EffectKind, *facts.backlog}),
            nothing=backlog.NOTHING,
            charts=[_tries(connection, moments), _failures(connection, moments)],
            paused={one.kind: one for one in facts.pauses},
            webhook_prefix=PREFIX,
            waiting=_waiting,
        )


def _waiting(queue: str) -> str:
    """Return the address of the effects that wait for the service behind a queue, or for a webhook."""
    if queue.startswith(PREFIX):
        return address("effects", subscriber=queue, state=["pending", "running"])
    return address("effects", kind=[kind for kind in QUEUES if QUEUES[kind] == queue], state="pending")


def _tries(connection: Connection, moments: Sequence[datetime]) -> Chart:
    grown = samples.increases(samples.series(connection, totals.TRIES, BACK))
    by_result = charts.summed(grown, place=1)
    # A sample counts what was before it.
    counted = {
        result: {at - samples.EVERY: number for at, number in by_result.get(result, {}).items()}
        for result in ("done", "retry", "failed")
    }
    title = "Tries in the last 6 hours, by result"
    nothing = charts.NOTHING if any(grown.values()) else FIRST_SAMPLES
    return charts.stacked(title, "results", counted, moments, nothing)


def _failures(connection: Connection, moments: Sequence[datetime]) -> Chart:
    found = failures.by_answer(connection, BACK, EVERY)
    names = sorted(found, key=lambda answer: -sum(found[answer].values()))
    drawn = {name: found[name] for name in names[:ANSWERS]}
    if rest := names[ANSWERS:]:
        drawn["others"] = sum((Counter(found[name]) for name in rest), Counter[datetime]())
    title = "Failed tries in the last 6 hours, by answer and kind"
    return charts.stacked(title, "answers", drawn, moments)


def _judged(site: Site) -> tuple[Facts, Judgement]:
    try:
        facts = site.health()
    except InvigilatorError as error:
        facts = site.known()
        judged = judge(facts)
        return facts, replace(judged, broken=[str(error), *judged.broken])
    return facts, judge(facts)
