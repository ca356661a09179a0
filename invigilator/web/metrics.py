"""What Prometheus scrapes: counted by the database and by the processes, never from Flower's events.

Labels come from our own words, from the names of subscribers and from the shards, so there are few. Nothing is
personal. `docs/observability.md` lists every metric.
"""

import secrets
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from http import HTTPStatus

from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from sqlalchemy import Connection, Engine

from db import subscribers, totals
from db.backlog import NOTHING
from db.connect import reading
from db.deliveries import PREFIX
from events.errors import InvigilatorError
from invigilator.web.problems import ProblemCode, ProblemError
from invigilator.web.shared_answer import SharedAnswer
from worker.batch_times import BUCKETS_S
from worker.health.facts import Facts
from worker.health.judgement import Status, judge
from worker.kinds import QUEUES, EffectKind

KEPT_S = 1.0
"""Seconds for which an answer is given again: whoever asks must not be able to keep engines busy."""
ANSWER_S = 8.0
"""Seconds after which a caller is told that there is no answer. Prometheus waits for 10 s by default."""


class Metrics(Collector):
    """Reads what the metrics say.

    Parameters:
        engine: of the database.
        facts: reads what there is to know of the processes and of what waits for them, or raises an
            `InvigilatorError` while the broker is away.
        known: reads what the database alone knows of that.
        token: what a caller must show as `Authorization: Bearer`. None lets everybody read them.
    """

    def __init__(
        self,
        engine: Engine,
        facts: Callable[[], Facts],
        known: Callable[[], Facts],
        token: str | None = None,
    ) -> None:
        self._engine = engine
        self._facts = facts
        self._known = known
        self._token = token
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)
        self._text = SharedAnswer(partial(generate_latest, self._registry))

    def admit(self, shown: str) -> None:
        """Let a caller pass.

        Parameters:
            shown: the header `Authorization`.

        Raises:
            ProblemError: it does not have the token.
        """
        if self._token is None or secrets.compare_digest(shown.encode(), f"Bearer {self._token}".encode()):
            return
        raise ProblemError(
            HTTPStatus.UNAUTHORIZED,
            ProblemCode.UNAUTHORIZED,
            "show the token of INVIGILATOR_METRICS_TOKEN as `Authorization: Bearer`",
            {"WWW-Authenticate": "Bearer"},
        )

    async def text(self) -> bytes:
        """Return the metrics in Prometheus's text format.

        They are read in one thread, for everybody who asks meanwhile. Those who wait hold no thread.

        Raises:
            sqlalchemy.exc.DBAPIError: the database is away.
            ProblemError: the database does not answer.
        """
        try:
            return await self._text.within(ANSWER_S, KEPT_S)
        except TimeoutError:
            detail = "the database does not answer; ask again later"
            raise ProblemError(HTTPStatus.SERVICE_UNAVAILABLE, ProblemCode.UNAVAILABLE, detail) from None

    def collect(self) -> Iterable[Metric]:
        """Read the metrics. Prometheus's client calls this."""
        looked = self._looked()
        facts = self._known() if looked is None else looked
        status = Status.NOT_WORKING if looked is None else judge(facts).status
        yield _gauge("status", "0: working, 1: needs somebody, 2: not working.", {(): status})
        yield _gauge("broker_up", "1 while the broker answers.", {(): looked is not None})
        yield from _of_health(facts)
        yield from _of_effects(facts)
        with reading(self._engine) as connection:
            yield from _of_totals(connection)
            yield from _of_feeds(connection)

    def _looked(self) -> Facts | None:
        """Return what there is to know. None while the broker is away or silent."""
        try:
            return self._facts()
        except InvigilatorError:
            return None

    def describe(self) -> Iterable[Metric]:
        """Name no metrics before they are read: that would need the database at the start."""
        return ()


def _of_health(facts: Facts) -> Iterator[Metric]:
    yield _gauge(
        "process_up",
        "How many processes of a role live. 0 where one is missing and none has taken its place.",
        {
            (role,): sum(facts.lives(one) for one in facts.processes if one.role == role)
            for role in _roles(facts)
        },
        "role",
    )
    yield _gauge(
        "process_oldest_sign_seconds",
        "Age of the oldest last sign of life of a role, in seconds.",
        {(role,): max(one.silent_s for one in facts.processes if one.role == role) for role in _roles(facts)},
        "role",
    )
    yield _gauge(
        "queue_length",
        "Commands that wait in the queue of a shard.",
        {(str(one.shard),): one.queued for one in facts.shards},
        "shard",
    )
    yield _gauge(
        "shard_stalled_seconds",
        "Seconds since the shard last made progress while something waited.",
        {(str(one.shard),): one.stalled_s or 0.0 for one in facts.shards},
        "shard",
    )
    yield _gauge("quarantined", "Messages in quarantine.", {(): facts.quarantined})
    yield _gauge(
        "partitions_missing",
        "Partitions of the next period that are missing where tables are divided.",
        {(): len(facts.lacking)},
    )
    open_now = {one.queue for one in facts.circuits}
    services = sorted({*QUEUES.values(), *(one.name for one in facts.endpoints)})
    yield _gauge(
        "circuit_open",
        "1 while a service is not called because it fails.",
        {(service,): service in open_now for service in services},
        "service",
    )
    paused = {one.kind for one in facts.pauses}
    yield _gauge(
        "paused",
        "1 while a person has paused a kind.",
        {(kind,): kind in paused for kind in EffectKind},
        "kind",
    )
    yield _gauge(
        "webhook_off",
        "1 while an endpoint is switched off.",
        {(one.name.removeprefix(PREFIX),): one.off_since is not None for one in facts.endpoints},
        "endpoint",
    )


def _roles(facts: Facts) -> list[str]:
    return sorted({one.role for one in facts.processes})


def _of_effects(facts: Facts) -> Iterator[Metric]:
    owed = {kind: facts.backlog.get(kind, NOTHING) for kind in EffectKind}
    yield _gauge(
        "effects",
        "Effects that are not finished.",
        {
            (kind, state): getattr(one, state)
            for kind, one in owed.items()
            for state in ("pending", "running", "failed")
        },
        "kind",
        "state",
    )
    yield _gauge(
        "effects_oldest_seconds",
        "Age of the oldest pending effect, in seconds.",
        {(kind,): one.oldest_s or 0.0 for kind, one in owed.items()},
        "kind",
    )


def _of_totals(connection: Connection) -> Iterator[Metric]:
    counts = totals.read(
        connection,
        totals.COMMANDS,
        totals.TRIES,
        totals.BATCHES,
        totals.BATCHES_SECONDS,
        totals.BATCHES_MESSAGES,
    )
    commands = CounterMetricFamily("invigilator_commands", "Commands by outcome.", labels=["outcome", "code"])
    tries = CounterMetricFamily("invigilator_tries", "Tries that have ended.", labels=["kind", "result"])
    for (name, *labels), value in counts.items():
        if name == totals.COMMANDS:
            commands.add_metric(labels, value)
        elif name == totals.TRIES:
            tries.add_metric(labels, value)
    yield commands
    yield tries
    bounds = [f"{bound:g}" for bound in BUCKETS_S] + ["+Inf"]
    batches = HistogramMetricFamily(
        "invigilator_batch_seconds", "How long batches of commands took, in seconds."
    )
    batches.add_metric(
        [],
        buckets=_cumulated([(bound, counts.get((totals.BATCHES, bound), 0.0)) for bound in bounds]),
        sum_value=counts.get((totals.BATCHES_SECONDS,), 0.0),
    )
    yield batches
    messages = CounterMetricFamily("invigilator_batch_messages", "Messages in those batches.")
    messages.add_metric([], counts.get((totals.BATCHES_MESSAGES,), 0.0))
    yield messages


def _cumulated(buckets: list[tuple[str, float]]) -> list[tuple[str, float]]:
    total, cumulated = 0.0, []
    for bound, number in buckets:
        total += number
        cumulated.append((bound, total))
    return cumulated


def _of_feeds(connection: Connection) -> Iterator[Metric]:
    yield _gauge(
        "feed_behind",
        "Events that a subscriber has not passed.",
        {(one.name,): one.behind for one in subscribers.standings(connection)},
        "feed",
    )


def _gauge(name: str, text: str, values: dict[tuple[str, ...], float], *labels: str) -> GaugeMetricFamily:
    gauge = GaugeMetricFamily(f"invigilator_{name}", text, labels=labels)
    for label_values, value in values.items():
        gauge.add_metric(label_values, float(value))
    return gauge


def routes(metrics: Metrics) -> APIRouter:
    """Return the route of the metrics."""
    router = APIRouter()

    @router.get("/metrics", include_in_schema=False)
    async def scrape(request: Request) -> Response:
        metrics.admit(request.headers.get("Authorization", ""))
        return Response(await metrics.text(), media_type=CONTENT_TYPE_LATEST)

    return router
