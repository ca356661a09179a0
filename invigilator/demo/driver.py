"""One session on a system that is up: published, followed until it has settled, counted and compared."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from rich.console import Console
from sqlalchemy import Connection, Engine

from events.errors import PublishError
from events.publisher import Publisher
from invigilator.demo.malformed import Malformed
from invigilator.demo.observed import observe, own_mails
from invigilator.demo.progress import Counts, Patience, Show, shown
from invigilator.demo.reference import MailSink, ReferenceLms
from invigilator.demo.session import Message, Session
from invigilator.demo.session_queries import OPEN, SETTLED, SessionQueries
from invigilator.demo.snapshot import Snapshot, differences
from invigilator.demo.summary import Numbers, show_reconciliation, show_summary
from invigilator.local.up import StoppedError, System
from worker.wiring import broker_url, database_engine

MESSAGES_PER_S = 50.0
"""How fast the LMS publishes: an exam session is no flood, and its follow-ups should be seen happening."""
LOOK_EVERY_S = 0.5
PUBLISH_FOR_S = 60.0
"""How long a message that the broker does not take is published again."""


@dataclass(slots=True)
class SessionDriver:
    """One session, its system and its other side.

    Parameters:
        expected: what must come of the session.
        stopped: whether somebody wants an end of it.
    """

    session: Session
    expected: Snapshot
    system: System
    lms: ReferenceLms
    sink: MailSink
    console: Console
    stopped: Callable[[], bool]
    published: int = 0
    goal: Counts = field(init=False)

    def __post_init__(self) -> None:
        self.goal = Counts(
            published=len(self.session.messages),
            committed=len(self.expected.outcomes),
            quarantined=sum(self.expected.quarantine.values()),
            effects=sum(self.expected.effects.values()),
            mails=sum(self.expected.mails.values()),
        )

    def run(self) -> bool:
        """SessionDriver the session to its end. Returns whether everything has come out as expected.

        Raises:
            PartEndedError: an engine ended, or a part of the system kept ending.
            PublishError: the broker does not take what is published.
            StalledError: nothing has moved for a minute.
            StoppedError: somebody wanted an end of it.
        """
        engine = database_engine(self.system.settings, "demo")
        began = time.monotonic()
        try:
            with shown(self.console, self.goal) as show:
                self._follow(engine, show)
            self.console.print(f"settled after {time.monotonic() - began:.0f} s", highlight=False)
            return self._conclude(engine)
        finally:
            engine.dispose()

    def _follow(self, engine: Engine, show: Show) -> None:
        """Publish at a steady pace, looking up now and then; afterwards only look."""
        patience = Patience(self.goal)
        with self._publisher() as publisher:
            began = looked = time.monotonic()
            for message in self.session.messages:
                self._publish(publisher, message)
                self.published += 1
                time.sleep(max(0.0, began + self.published / MESSAGES_PER_S - time.monotonic()))
                if time.monotonic() >= looked + LOOK_EVERY_S:
                    looked = time.monotonic()
                    self._look(engine, show, patience)
        while not self._look(engine, show, patience).is_settled(self.goal):
            time.sleep(LOOK_EVERY_S)

    def _look(self, engine: Engine, show: Show, patience: Patience) -> Counts:
        self._check()
        counts = self._count(engine)
        show(counts)
        patience.see(counts)
        return counts

    def _check(self) -> None:
        if self.stopped():
            raise StoppedError("stopped before the end of the session")
        self.system.check()

    def _publisher(self) -> Publisher:
        settings = self.system.settings
        # The consumer may not have said yet how many shards there are. It has the number from these settings, too.
        logging.getLogger("events.sender").setLevel(logging.ERROR)
        return Publisher(broker_url(settings), source=self.session.source, shards=settings.command_shards)

    def _publish(self, publisher: Publisher, message: Message) -> None:
        """Publish, and again with the same id: on RabbitMQ the queues are there once the consumer is."""
        give_up = time.monotonic() + PUBLISH_FOR_S
        while True:
            try:
                if isinstance(message, Malformed):
                    publisher.publish_raw(message.body, self.published % publisher.shards)
                else:
                    publisher.publish(message)
            except PublishError:
                if time.monotonic() >= give_up:
                    raise
                self._check()
                time.sleep(LOOK_EVERY_S)
            else:
                return

    def _count(self, engine: Engine) -> Counts:
        with engine.connect() as connection:
            queries = self._queries(connection)
            # First what owes effects, then the effects: what is committed in between is not overlooked.
            committed, quarantined = queries.committed(), queries.quarantined()
            effects, tries = queries.effects(), queries.tries()
        return Counts(
            published=self.published,
            committed=committed,
            quarantined=quarantined,
            effects=sum(count for (_, state), count in effects.items() if state in SETTLED),
            unfinished=sum(count for (_, state), count in effects.items() if state in OPEN),
            tries=tries.total(),
            mails=len(own_mails(self.session, self.sink.mails)),
        )

    def _queries(self, connection: Connection) -> SessionQueries:
        return SessionQueries(connection, self.session.source, self.session.run, self.session.exam_ids)

    def _conclude(self, engine: Engine) -> bool:
        with engine.connect() as connection:
            queries = self._queries(connection)
            found = observe(self.session, queries, self.lms.credit, self.lms.deletions, self.sink.mails)
            numbers = Numbers(
                queries.statuses(),
                queries.effects(),
                queries.tries(),
                self.lms.counts,
                len(own_mails(self.session, self.sink.mails)),
            )
        wrong = differences(self.expected, found)
        learners = len(self.session.learner_ids)
        show_summary(self.console, found, numbers)
        show_reconciliation(self.console, learners, learners * len(self.session.exam_ids), wrong)
        return not wrong
