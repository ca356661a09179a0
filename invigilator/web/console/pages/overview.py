"""The overview: what is wrong, and what waits."""

from starlette.responses import Response

from db import bulk, causes, deliveries, lookups, processes, subscribers, waiting
from db.deliveries import PREFIX
from events.errors import InvigilatorError
from invigilator.web.console.site import Site, Visit
from invigilator.web.reading import reading
from worker.health.facts import Facts
from worker.health.judgement import Judgement, judge
from worker.kinds import EffectKind

RECENT_ACTS = 5


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
            feeds=[one for one in subscribers.standings(connection) if not one.name.startswith(PREFIX)],
            acts=bulk.newest(connection, RECENT_ACTS),
            kinds=tuple(EffectKind),
            paused={one.kind: one for one in facts.pauses},
            webhook_prefix=PREFIX,
        )


def _judged(site: Site) -> tuple[Facts, Judgement]:
    try:
        facts = site.health()
    except InvigilatorError as error:
        facts = _without_broker(site)
        judged = judge(facts)
        return facts, Judgement([str(error), *judged.broken], judged.needs)
    return facts, judge(facts)


def _without_broker(site: Site) -> Facts:
    """What the database tells while the broker is away."""
    with reading(site.engine) as connection:
        return Facts(
            processes=processes.seen(connection),
            failed=lookups.count_failed(connection),
            quarantined=lookups.count_quarantined(connection),
            circuits=waiting.open_circuits(connection),
            pauses=waiting.pauses(connection),
            endpoints=deliveries.endpoints(connection),
        )


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


def _listed(parts: list[str] | tuple[str, ...]) -> str:
    *others, last = parts
    return f"{', '.join(others)}, and {last}" if others else last
