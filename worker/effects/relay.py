"""The outbox relay: it offers due effects to the workers. The rows are the truth, a message only says "look"."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import psycopg2
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from db import offers
from db.errors import brief
from db.listening import listening, wait
from db.offers import Offer
from db.wake import EFFECTS_CHANNEL
from worker.effects.rooms import Rooms
from worker.errors import Transient
from worker.kinds import QUEUES, EffectKind
from worker.logs import get_logger
from worker.pacing import Pacer

logger = get_logger(__name__)

BUSY_PAUSE_S = 0.05
"""Seconds until the next round if more may be due than was offered."""
FULL_PAUSE_S = 0.5
"""Seconds until the next round if there was no room, because workers are slow or away."""
GATHER_S = 0.05
"""The longest pause between two rounds. Notifications gather meanwhile, and one round serves many batches."""


class Dispatcher(Protocol):
    """Publishes tasks to the workers."""

    def dispatch(self, offers: Sequence[Offer]) -> None:
        """Publish one task for each effect, in order. Raises `Transient` when the broker is away."""
        ...

    def queue_length(self, queue: str) -> int:
        """How many tasks wait in a queue. Raises `Transient` when the broker is away."""
        ...


@dataclass(slots=True)
class Relay:
    """Offers due effects until told to stop. Several may run: rows are taken with SKIP LOCKED.

    `engine` needs a direct connection: LISTEN does not work through PgBouncer in transaction mode.
    """

    engine: Engine
    dispatcher: Dispatcher
    poll_s: float
    offer_ttl_s: float
    rooms: Rooms = field(init=False)

    def __post_init__(self) -> None:
        self.rooms = Rooms(self.dispatcher.queue_length)

    def run(self, stopping: threading.Event) -> None:
        """Offer what is due, again and again: when effects are committed, and every `poll_s` seconds."""
        while not stopping.is_set():
            try:
                with listening(self.engine, EFFECTS_CHANNEL) as notifications:
                    self._serve(notifications, stopping)
            except (DBAPIError, psycopg2.Error, Transient) as error:
                # psycopg2's own come from the connection that listens: SQLAlchemy does not wrap those.
                logger.warning("the relay tries again", reason=brief(error), again_in_s=self.poll_s)
                self.engine.dispose()
                stopping.wait(self.poll_s)

    def _serve(self, notifications: Any, stopping: threading.Event) -> None:
        pacer = Pacer(GATHER_S)
        while not stopping.is_set():
            pacer.begin()
            look_again_s = self.offer_once()
            pacer.end()
            gather_s = pacer.pause_s()
            stopping.wait(gather_s)
            wait(notifications, look_again_s - gather_s, stopping)

    def offer_once(self) -> float:
        """Offer what is due, as far as there is room. Returns the seconds to wait before the next round.

        Raises:
            Transient: the broker is away; the offers that it did not take will be made again.
        """
        with self.engine.begin() as connection:
            seen = offers.find_due(connection, list(QUEUES))
            if not seen.kinds:
                return self.poll_s
            answering = [kind for kind in seen.kinds if QUEUES[kind] not in seen.opened]
            sizes = self.rooms.sizes(connection, answering)
            offered = offers.offer(connection, seen, sizes, self.offer_ttl_s)
        self._dispatch(offered.made)
        for name, awaits_probe in seen.opened.items():
            if awaits_probe:
                self._offer_probe(seen.kinds, name)
        if offered.is_full:
            return BUSY_PAUSE_S
        return self.poll_s if all(size > 0 for size in sizes.values()) else min(FULL_PAUSE_S, self.poll_s)

    def _offer_probe(self, seen: Sequence[str], name: str) -> None:
        """Offer one effect of a service that may be probed. Each round offers another, until a worker has one.

        Parameters:
            seen: the kinds that have effects to offer.
            name: of the circuit: the queue of a service, or the subscriber of a webhook.
        """
        is_service = name in QUEUES.values()
        queue = name if is_service else QUEUES[EffectKind.DELIVER_EVENT]
        kinds = [kind for kind in seen if QUEUES[kind] == queue]
        with self.engine.begin() as connection:
            if min(self.rooms.sizes(connection, kinds).values(), default=0) <= 0:
                return
            made = offers.offer_oldest(connection, kinds, self.offer_ttl_s, None if is_service else name)
        self._dispatch(made)

    def _dispatch(self, made: Sequence[Offer]) -> None:
        if not made:
            return
        self.rooms.take(made)
        try:
            self.dispatcher.dispatch(made)
        except Transient:
            self.rooms.forget()
            with self.engine.begin() as connection:
                offers.withdraw(connection, [offer.id for offer in made])
            raise
