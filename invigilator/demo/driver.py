"""Drives one session through a running system: publishes it, waits until it has settled, compares the result."""

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
from invigilator.demo.progress import Counts, Show, StallDetector, show_progress
from invigilator.demo.reference import MailSink, ReferenceLms
from invigilator.demo.session import Message, Session
from invigilator.demo.session_queries import OPEN, SETTLED, SessionQueries
from invigilator.demo.snapshot import Snapshot, differences
from invigilator.demo.summary import Numbers, show_reconciliation, show_summary
from invigilator.local.up import StoppedError, System
from worker.wiring import broker_url, database_engine

MESSAGES_PER_S = 50.0
"""The rate at which the LMS publishes: slow enough that a person can watch the follow-ups happen."""
POLL_S = 0.5
PUBLISH_FOR_S = 60.0
"""Seconds for which a message is published again when the broker refuses it."""


@dataclass(slots=True)
class SessionDriver:
    """Drives one session through a running system.

    Parameters:
        session: the messages to publish.
        expected: the snapshot that the session must lead to.
        system: the running system.
        lms: the LMS that the system calls.
        sink: the mail server that the system calls.
        console: shows progress and results.
        stopped: returns whether a person wants the session to end.
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
        """Play the session to its end. Return whether every result is as expected.

        Raises:
            PartEndedError: an engine ended, or a part of the system kept ending.
            PublishError: the broker refused a message for `PUBLISH_FOR_S` seconds.
            StalledError: the session made no progress for a minute.
            StoppedError: `stopped` returned True.
        """
        engine = database_engine(self.system.settings, "demo")
        began = time.monotonic()
        try:
            with show_progress(self.console, self.goal) as show:
                self._follow(engine, show)
            self.console.print(f"settled after {time.monotonic() - began:.0f} s", highlight=False)
            return self._conclude(engine)
        finally:
            engine.dispose()

    def _follow(self, engine: Engine, show: Show) -> None:
        """Publish all messages at a steady rate, then wait until the session has settled."""
        stall_detector = StallDetector(self.goal)
        with self._publisher() as publisher:
            began = checked = time.monotonic()
            for message in self.session.messages:
                self._publish(publisher, message)
                self.published += 1
                time.sleep(max(0.0, began + self.published / MESSAGES_PER_S - time.monotonic()))
                if time.monotonic() >= checked + POLL_S:
                    checked = time.monotonic()
                    self._check_progress(engine, show, stall_detector)
        while not self._check_progress(engine, show, stall_detector).is_settled(self.goal):
            time.sleep(POLL_S)

    def _check_progress(self, engine: Engine, show: Show, stall_detector: StallDetector) -> Counts:
        self._check()
        counts = self._count(engine)
        show(counts)
        stall_detector.check(counts)
        return counts

    def _check(self) -> None:
        if self.stopped():
            raise StoppedError("stopped before the end of the session")
        self.system.check()

    def _publisher(self) -> Publisher:
        settings = self.system.settings
        # The publisher needs the number of shards, and would warn because the consumer may not have announced it in
        # the broker yet. The consumer takes the number from the same settings, so the warning is switched off.
        logging.getLogger("events.shard_count").setLevel(logging.ERROR)
        return Publisher(
            broker_url(settings), source=self.session.source, assumed_shards=settings.command_shards
        )

    def _publish(self, publisher: Publisher, message: Message) -> None:
        """Publish one message, and repeat it with the same id while the broker refuses it.

        On RabbitMQ the consumer creates the queues, which may not have happened yet.
        """
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
                time.sleep(POLL_S)
            else:
                return

    def _count(self, engine: Engine) -> Counts:
        with engine.connect() as connection:
            queries = self._queries(connection)
            # Count the commands first, then the effects: the effects of a counted command are then never missing.
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
