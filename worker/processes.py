"""The processes that are not Celery's: `consume`, `relay`, and both in one. Celery's workers run the effects."""

import os
import secrets
import socket
import threading
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial

from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from db import prepared, resharding, shards
from db.compatibility import Schema, compare
from db.errors import Failure, brief, classify
from events.cloudevent import source_of
from events.sharding import MAX_SHARDS, queue_name
from worker import patches
from worker.app import app, check_broker
from worker.celery.dispatcher import CeleryDispatcher
from worker.commands.batches import Batches
from worker.commands.consumer import Consumer
from worker.commands.handler import Handler
from worker.commands.sources import Source, open_source
from worker.commands.trust import Trust, load_trust
from worker.counting import Counting
from worker.cycles import look_for_cycles_rarely
from worker.effects.relay import Relay
from worker.errors import ConfigurationError
from worker.feeds.base import Format, Target
from worker.feeds.brokers import open_bus, open_target
from worker.feeds.cloudevents import CloudEventsFormat
from worker.feeds.fanout import Fanout
from worker.feeds.numberer import Numberer
from worker.feeds.publisher import FeedPublisher
from worker.heartbeat import COMMANDS, RELAY, STUCK_AFTER_S, Heartbeat, Look, ShardProgress
from worker.logs import get_logger
from worker.patches import Process
from worker.pruning import Pruner
from worker.settings import Settings
from worker.subscribers import Feed, OpenEdx
from worker.subscriptions import Subscriptions, load_subscriptions
from worker.threads import Loop, Loops
from worker.wiring import (
    broker_url,
    comparison,
    database_engine,
    handler,
    offer_ttl_s,
    start_traces,
    subscriptions,
)

logger = get_logger(__name__)

PAUSE_S = 1.0
LOCK_TIMEOUT_S = 5
STATEMENT_TIMEOUT_S = 60
RELAY_SESSION = f"{prepared.SESSION_SETTINGS} -c synchronous_commit=off"
"""The libpq options of the relay's connection. An offer that PostgreSQL forgets in a crash is made again."""


@dataclass(frozen=True, slots=True)
class Duty:
    """The work of one line of the Procfile.

    Parameters:
        role: the name of that line.
        names: returns the names of the loops that do the work. There may be more of them later.
        look: returns what the process sees of it. It is given the names of those loops that are stuck, and whether
            the process was told to stop.
    """

    role: str
    names: Callable[[], Collection[str]]
    look: Callable[[Sequence[str], bool], Look]


def consume(settings: Settings, only: Sequence[int] = ()) -> None:
    """Consume commands until SIGTERM. Takes every shard that is free, and stands by for the others.

    Parameters:
        settings: with the addresses of the database and the broker.
        only: the numbers of the shards to take; none means all.

    Raises:
        ConfigurationError: the settings are wrong or do not fit the database, or its schema cannot be used.
        UnfitDatabaseError: the database cannot hold every text.
        BadReleaseError: commands failed that should not, so the fault is this release's.
    """
    _run(settings, [partial(_consuming, only=only)])


def relay(settings: Settings) -> None:
    """Offer due effects to the Celery workers and publish events until SIGTERM, and prune every day.

    Parameters:
        settings: with the addresses of the database and the broker.

    Raises:
        ConfigurationError: the settings are wrong, or the database's schema cannot be used.
        UnfitDatabaseError: the database cannot hold every text.
    """
    _run(settings, [_relaying])


def work(settings: Settings) -> None:
    """Do what `consume` and `relay` do, in one process, until SIGTERM. Raises what they raise.

    Parameters:
        settings: with the addresses of the database and the broker.
    """
    _run(settings, [_consuming, _relaying])


def _run(settings: Settings, duties: Sequence[Callable[[Settings, Loops], Duty]]) -> None:
    """Run the loops of all duties until SIGTERM, with signs of life. Raises the first error of a loop."""
    loops = Loops()
    looks = {duty.role: partial(_look, duty, loops) for duty in [begin(settings, loops) for begin in duties]}
    look_for_cycles_rarely()
    with Heartbeat(database_engine(settings, "heartbeat"), looks, settings.heartbeat_s):
        loops.run_until_stopped()


def _look(duty: Duty, loops: Loops) -> Look:
    stuck = [name for name in loops.late(STUCK_AFTER_S) if name in duty.names()]
    return duty.look(stuck, loops.is_stopping)


def _consuming(settings: Settings, loops: Loops, only: Sequence[int] = ()) -> Duty:
    patches.apply(Process.CONSUME, settings)
    patches.warn_of_switched_off(Process.CONSUME, settings)
    start_traces(settings, "consume")
    write = handler(settings)
    trust = load_trust(settings.command_keys_file)
    if trust is not None:
        logger.info("commands must be signed", sources=len(trust.grants))
    comparing = _comparing(settings, load_subscriptions(settings.subscriptions_file))
    loops.add_all(comparing)
    serving = Serving(settings, write, trust, loops, only)
    return Duty(COMMANDS, lambda: [*comparing, *serving.names()], serving.look)


def _relaying(settings: Settings, loops: Loops) -> Duty:
    check_broker(settings)
    subscribed = subscriptions(settings)
    engine = database_engine(settings, "relay", session_settings=RELAY_SESSION, pre_ping=False)
    loop = Relay(engine, CeleryDispatcher(app), settings.poll_s, offer_ttl_s(settings))
    found = {"relay": _after_checks(partial(check_schema, engine), engine, loop.run)}
    pruning = database_engine(settings, "prune")
    pruner = Pruner(pruning, settings.prune_older_than, settings.events_keep)
    found["prune"] = _after_checks(partial(check_schema, pruning), pruning, pruner.run)
    counted = database_engine(settings, "count")
    found["count"] = _after_checks(partial(check_schema, counted), counted, Counting(counted).run)
    found |= _feed_loops(settings, subscribed)
    loops.add_all(found)
    return Duty(RELAY, found.keys, _look_at_relay)


def _look_at_relay(stuck: Sequence[str], is_stopping: bool) -> Look:
    return Look(stuck=stuck, is_stopping=is_stopping)


def _feed_loops(settings: Settings, subscribed: Subscriptions) -> dict[str, Loop]:
    """The loops that number events, publish them to each feed, and owe the webhooks their deliveries."""
    # Who stands still in a transaction may not hold the log or a cursor for longer than a lease.
    idle_ms = int(settings.shard_lease_s * 1000)
    idle = f"{prepared.SESSION_SETTINGS} -c idle_in_transaction_session_timeout={idle_ms}"
    # All of them begin anew at the first error, so none asks whether its connection lives.
    numbering = database_engine(settings, "events", session_settings=idle, pre_ping=False)
    numberer = Numberer(numbering, subscribed, settings.poll_s)
    loops = {"events": _after_checks(partial(check_schema, numbering), numbering, numberer.run)}
    loops |= _comparing(settings, subscribed)  # another relay may have stored another file since
    for name, subscriber in subscribed.published().items():
        engine = database_engine(
            settings, name, session_settings=prepared.SESSION_SETTINGS, pre_ping=False, autocommit=True
        )
        written_as, open_there = _way_to(subscriber, settings, engine)
        publisher = FeedPublisher(
            name=name,
            format=written_as,
            owner=_owner(),
            engine=engine,
            open_target=open_there,
            lease_s=settings.shard_lease_s,
        )
        loops[name] = _after_checks(partial(check_schema, engine), engine, publisher.run)
    if webhooks := subscribed.webhooks():
        engine = database_engine(settings, "webhooks", session_settings=idle, pre_ping=False)
        fanout = Fanout(engine, webhooks, source_of(settings.instance), settings.poll_s)
        loops["webhooks"] = _after_checks(partial(check_schema, engine), engine, fanout.run)
    return loops


def _comparing(settings: Settings, subscribed: Subscriptions) -> dict[str, Loop]:
    """The loop that warns when the file of this process is not what counts. A process without a file needs none."""
    compared = comparison(settings, subscribed)
    if compared is None:
        return {}
    engine = compared.engine
    return {"subscriptions": _after_checks(partial(check_schema, engine), engine, compared.run)}


def _way_to(
    subscriber: Feed | OpenEdx, settings: Settings, engine: Engine
) -> tuple[Format, Callable[[], Target]]:
    source = source_of(settings.instance)
    if isinstance(subscriber, Feed):
        return CloudEventsFormat(subscriber, source), partial(open_target, broker_url(settings), subscriber)
    from worker.feeds.openedx import OpenEdxFormat  # needs packages of an extra

    return OpenEdxFormat(engine, source), partial(open_bus, subscriber)


def _owner() -> str:
    """A name for this process that no other one has had."""
    return f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"


class Serving:
    """The consumers of a `consume`: one for each shard, also for those that come while it runs.

    Parameters:
        settings: with the addresses of the database and the broker.
        write: handles the batches.
        trust: whose commands are accepted; None accepts everybody's.
        loops: gets a loop for each consumer.
        only: the numbers of the shards to take; none means all.
    """

    def __init__(
        self, settings: Settings, write: Handler, trust: Trust | None, loops: Loops, only: Sequence[int]
    ) -> None:
        self._settings = settings
        self._write = write
        self._trust = trust
        self._loops = loops
        self._only = only
        self._lock = threading.Lock()
        self._consumers: list[Consumer] = []
        self._rows = 0
        self._has_warned = False
        for shard in only or range(settings.command_shards):
            self._add(shard)

    def names(self) -> list[str]:
        """Return the names of the consumers' loops."""
        return [_loop_name(one.shard) for one in self._consumers.copy()]

    def look(self, stuck: Sequence[str], is_stopping: bool) -> Look:
        """Return what the process sees of itself.

        Parameters:
            stuck: the names of the loops that are stuck.
            is_stopping: whether the process was told to stop.
        """
        consumers = self._consumers.copy()
        progress = [
            ShardProgress(one.shard, one.owner, ago_s)
            for one in consumers
            if (ago_s := one.progressed.ago_s) is not None
        ]
        read = [queue_name(one.shard) for one in consumers if one.shard < (self._rows or MAX_SHARDS)]
        return Look({"queues": read}, stuck, is_stopping, progress)

    def _found(self, rows: int) -> None:
        """Serve every shard that the database has. The consumers of others stand by: they may come back."""
        with self._lock:
            self._rows = rows
            if not self._only:
                for shard in range(len(self._consumers), rows):
                    self._add(shard)

    def _add(self, shard: int) -> None:
        consumer = self._consumer(shard)
        self._consumers.append(consumer)
        check = partial(self._check, consumer)
        self._loops.add(_loop_name(shard), _after_checks(check, consumer.engine, consumer.run))

    def _consumer(self, shard: int) -> Consumer:
        settings = self._settings
        engine = database_engine(
            settings, f"shard {shard}", session_settings=session_settings(settings), pre_ping=False
        )

        def open_shard() -> Source:
            return open_source(broker_url(settings), queue_name(shard), settings.batch_size)

        return Consumer(
            shard=shard,
            owner=_owner(),
            engine=engine,
            batches=Batches(engine, self._write, settings.shard_lease_s),
            open_source=open_shard,
            batch_size=settings.batch_size,
            lease_s=settings.shard_lease_s,
            trust=self._trust,
            on_rows=self._found,
        )

    def _check(self, consumer: Consumer) -> None:
        """Make sure that the shard can be served.

        Raises:
            ConfigurationError: the database's schema cannot be used, or it has no such shard; says what to do.
            UnfitDatabaseError: the database cannot hold every text.
        """
        check_schema(consumer.engine)
        with consumer.engine.begin() as connection:
            rows = shards.ensure_shards(connection, self._settings.command_shards)
            number = resharding.read(connection).number
        if consumer.shard in self._only and consumer.shard >= rows:
            raise ConfigurationError(f"there is no shard {consumer.shard}; shards are 0 to {rows - 1}")
        self._warn(number)

    def _warn(self, number: int) -> None:
        with self._lock:
            has_warned, self._has_warned = self._has_warned, True
        if number != self._settings.command_shards and not has_warned:
            logger.warning(
                "the database has another number of shards than the setting",
                shards=number,
                setting=self._settings.command_shards,
                hint="the database's counts; set INVIGILATOR_COMMAND_SHARDS to it, or use `invigilator shards set`",
            )


def _loop_name(shard: int) -> str:
    return f"shard-{shard}"


def session_settings(settings: Settings) -> str:
    """The libpq options of a shard's connection.

    The time-outs keep an owner that stands still in the middle of a batch from blocking its successor.
    """
    idle_ms = int(settings.shard_lease_s * 1000)
    return (
        f"{prepared.SESSION_SETTINGS} "
        f"-c idle_in_transaction_session_timeout={idle_ms} "
        f"-c lock_timeout={LOCK_TIMEOUT_S}s -c statement_timeout={STATEMENT_TIMEOUT_S}s"
    )


def _after_checks(check: Callable[[], None], engine: Engine, loop: Callable[[threading.Event], None]) -> Loop:
    """The loop, which begins when the database is there and has passed the check."""

    def run(stopping: threading.Event) -> None:
        try:
            while not stopping.is_set():
                try:
                    check()
                except DBAPIError as error:
                    if classify(error) is Failure.UNAVAILABLE:
                        logger.warning("the database is away", reason=brief(error))
                    else:
                        logger.warning("the database cannot be used", reason=brief(error))
                    stopping.wait(PAUSE_S)
                else:
                    loop(stopping)
                    return
        finally:
            engine.dispose()

    return run


def check_schema(engine: Engine) -> None:
    """Make sure that this release can use the database's schema.

    Raises:
        ConfigurationError: it cannot, because the schema is too old or too new; says which, and what to do.
        UnfitDatabaseError: the database cannot hold every text.
    """
    with engine.begin() as connection:
        schema = compare(connection)
    if schema is not Schema.USABLE:
        raise ConfigurationError(schema)
