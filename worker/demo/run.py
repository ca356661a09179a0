"""The demo from start to end: everything up, the session published, settled, counted and compared."""

import os
import secrets
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import FrameType
from typing import TextIO

from pydantic import SecretStr
from rich.console import Console
from sqlalchemy import Connection, Engine

from db.connect import make_engine
from db.models import EffectState
from events.errors import PublishError
from events.publisher import Publisher
from worker.demo.expected import expect
from worker.demo.malformed import Malformed
from worker.demo.observed import observe, own_mails
from worker.demo.picture import Picture, differences
from worker.demo.preflight import prepare
from worker.demo.progress import Counts, Patience, Show, shown
from worker.demo.record import OPEN, SETTLED, Record
from worker.demo.session import Message, Session, generate
from worker.demo.summary import Numbers, show_reconciliation, show_summary
from worker.embedded import folder
from worker.embedded.server import HOST
from worker.errors import ConfigurationError
from worker.lms.reference import MailSink, ReferenceLms
from worker.policies import load_policies
from worker.settings import Settings
from worker.system.up import StoppedError, System, environment

SEED = 7
LMS_FAILS = 0.1
"""The part of the calls that the reference LMS answers with 503."""
MESSAGES_PER_S = 75.0
"""How fast the LMS publishes: an exam session is no flood, and its follow-ups should be seen happening."""
LOOK_EVERY_S = 0.5
PUBLISH_FOR_S = 60.0
"""How long a message that the broker does not take is published again."""
LOG = "demo.log"
HINTS = ("status", "effects list --state superseded", "commands list --outcome rejected", "quarantine list")


def run_demo(settings: Settings, console: Console, *, keep: bool) -> bool:
    """Run the demo in the foreground, for the main thread.

    Parameters:
        settings: of the system; where the LMS and the mail server are is the demo's own affair.
        console: where everything is shown.
        keep: leave the system up afterwards, until Ctrl-C.

    Returns:
        whether everything has come out as the rules say.

    Raises:
        AlreadyRunningError: a system runs on the data folder.
        ConfigurationError: something is missing, or the database is not the demo's to use.
        PartEndedError: a part of the system ended by itself.
        StalledError: nothing has moved for a minute; says what is stuck.
        StoppedError: Ctrl-C or SIGTERM came before the end.
    """
    session = generate(secrets.token_hex(3), seed=SEED, start=datetime.now(UTC))
    instructor = settings.instructor == "on"
    expected = expect(session, load_policies(settings.policies_file), instructor=instructor)
    token = settings.lms_token.get_secret_value() if settings.lms_token else None
    with ReferenceLms(fail_fraction=LMS_FAILS, seed=SEED, token=token) as lms, MailSink() as sink:
        lms.name_course(session.course_id, "Thinking in Proofs")
        settings = _settings_for(settings, lms, sink)
        flower_port = _reserve_flower_port(settings)
        with _log_file(settings.data_dir) as log:
            system = System(settings, output=log, migrate=partial(prepare, patience_s=_lease_s(settings)))
            with _stopping(system) as stopped:
                console.print(f"starting the system; its log is {log.name}", highlight=False, soft_wrap=True)
                with system:
                    console.print(f"Flower is at http://{HOST}:{flower_port}", soft_wrap=True)
                    demo = _Demo(session, expected, system, lms, sink, console, stopped)
                    good = demo.run()
                    if keep:
                        demo.stay()
                    console.print("stopping the system", highlight=False)
    return good


def _settings_for(settings: Settings, lms: ReferenceLms, sink: MailSink) -> Settings:
    # Retries soon, because the session is short.
    changes = {"lms_url": lms.url, "smtp_url": SecretStr(sink.url)}
    hurry = {"retry_base_s": 0.2, "retry_cap_s": 2.0, "poll_s": 0.5}
    return settings.model_copy(update={**changes, **hurry, "data_dir": settings.data_dir.absolute()})


def _lease_s(settings: Settings) -> float:
    return 2 * settings.shard_lease_s


def _reserve_flower_port(settings: Settings) -> str:
    # The system would choose the same one, and write it to its log; we want to print it.
    port = environment(settings)["FLOWER_PORT"]
    os.environ["FLOWER_PORT"] = port
    return port


@contextmanager
def _log_file(data_dir: Path) -> Iterator[TextIO]:
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Another demo may be writing its log: then the system says so, and nothing is lost.
        log = (data_dir / LOG).open("a" if folder.is_held(data_dir) else "w", encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(f"the data folder {data_dir} cannot be used: {error.strerror}") from None
    with log:
        yield log


@contextmanager
def _stopping(system: System) -> Iterator[Callable[[], bool]]:
    """Let SIGINT, SIGTERM and SIGHUP end the demo in its own time. Yields whether one has come."""
    came: list[int] = []

    def handle(number: int, _frame: FrameType | None) -> None:
        came.append(number)
        system.stop()

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, handle) for number in numbers}
    try:
        yield lambda: bool(came)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@dataclass(slots=True)
class _Demo:
    """One session on a system that is up."""

    session: Session
    expected: Picture
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
        """Publish the session, wait until nothing is left to do, and say what came of it."""
        settings = self.system.settings
        assert settings.database_url is not None
        engine = make_engine(settings.database_url.get_secret_value(), application_name="invigilator demo")
        began = time.monotonic()
        try:
            with shown(self.console, self.goal) as show:
                self._follow(engine, show)
            self.console.print(f"settled after {time.monotonic() - began:.0f} s", highlight=False)
            return self._conclude(engine)
        finally:
            engine.dispose()

    def stay(self) -> None:
        """Leave the system up until it is told to stop."""
        self.console.print("the system stays up until Ctrl-C; in another terminal, try:", highlight=False)
        for hint in HINTS:
            self.console.print(f"  invigilator {hint}", highlight=False, soft_wrap=True)
        while not self.stopped():
            self.system.check()
            time.sleep(LOOK_EVERY_S)

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
        if self.stopped():
            raise StoppedError("stopped before the end of the session")
        self.system.check()
        counts = self._count(engine)
        show(counts)
        patience.see(counts)
        return counts

    def _publisher(self) -> Publisher:
        settings = self.system.settings
        assert settings.broker_url is not None
        return Publisher(
            settings.broker_url.get_secret_value(),
            source=self.session.source,
            shards=settings.command_shards,
        )

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
                if time.monotonic() >= give_up or self.stopped():
                    raise
                self.system.check()
                time.sleep(LOOK_EVERY_S)
            else:
                return

    def _count(self, engine: Engine) -> Counts:
        with engine.connect() as connection:
            record = self._record(connection)
            # First what owes effects, then the effects: what is committed in between is not overlooked.
            committed, quarantined = record.committed(), record.quarantined()
            effects, tries = record.effects(), record.tries()
        return Counts(
            published=self.published,
            committed=committed,
            quarantined=quarantined,
            effects=sum(count for (_, state), count in effects.items() if state in SETTLED),
            unfinished=sum(count for (_, state), count in effects.items() if state in OPEN),
            failed=sum(count for (_, state), count in effects.items() if state == EffectState.FAILED),
            tries=tries.total(),
            mails=len(own_mails(self.session, self.sink.mails)),
        )

    def _record(self, connection: Connection) -> Record:
        return Record(connection, self.session.source, self.session.run, self.session.exam_ids)

    def _conclude(self, engine: Engine) -> bool:
        with engine.connect() as connection:
            record = self._record(connection)
            found = observe(self.session, record, self.lms.credit, self.lms.deletions, self.sink.mails)
            numbers = Numbers(
                record.statuses(),
                record.effects(),
                record.tries(),
                self.lms.counts,
                len(own_mails(self.session, self.sink.mails)),
            )
        wrong = differences(self.expected, found)
        learners = len(self.session.learner_ids)
        show_summary(self.console, found, numbers)
        show_reconciliation(self.console, learners, learners * len(self.session.exam_ids), wrong)
        return not wrong
