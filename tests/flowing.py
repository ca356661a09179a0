"""Learners whose attempts begin, go on and end while the number of shards changes, and what became of it."""

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from sqlalchemy import Engine, text

from events.errors import PublishError
from events.publisher import Publisher

PUBLISHERS = 3
LEARNERS = 8
CYCLE = ("started", "submitted")
DESCRIPTIONS = LEARNERS + PUBLISHERS + 1
PATIENCE_S = 60.0


@dataclass
class Learner:
    """A learner whose attempts begin, go on and end, each command by another of several publishers."""

    user_id: str
    publishers: Sequence[Publisher]
    published: int = 0

    def live(self, cycle: int) -> None:
        """Publish the commands of one attempt."""
        code = f"{self.user_id}-{cycle}"
        self._next().create_attempt(exam_id="A", user_id=self.user_id, attempt_code=code)
        for status in CYCLE:
            self._next().update_status(exam_id="A", user_id=self.user_id, attempt_code=code, to_status=status)
        self._next().remove_attempt(exam_id="A", user_id=self.user_id, attempt_code=code)

    def _next(self) -> Publisher:
        self.published += 1
        return self.publishers[self.published % len(self.publishers)]


@dataclass
class Traffic:
    """The learners, and the publishers that publish for them."""

    publishers: Sequence[Publisher]
    learners: Sequence[Learner]

    @property
    def published(self) -> int:
        """How many commands were published. Any order but each learner's own would reject some."""
        return sum(learner.published for learner in self.learners) + DESCRIPTIONS

    @contextmanager
    def flowing(self) -> Iterator[None]:
        """Publish in two threads until the end of the block."""
        enough = threading.Event()
        threads = [
            threading.Thread(target=_flow, args=(self.learners[number::2], enough), daemon=True)
            for number in range(2)
        ]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            enough.set()
            for thread in threads:
                thread.join()


@contextmanager
def traffic(url: str, shards: int, timeout_s: float) -> Iterator[Traffic]:
    """Connect publishers that take the number of shards for this one until they hear, and describe the learners."""
    with ExitStack() as stack:
        publishers = [
            stack.enter_context(
                Publisher(url, source=f"/lms/{number}", timeout_s=timeout_s, assumed_shards=shards)
            )
            for number in range(PUBLISHERS)
        ]
        learners = [Learner(str(number), publishers) for number in range(LEARNERS)]
        for publisher in publishers:
            _publish_first(publisher)
        publishers[0].upsert_exam(exam_id="A", course_id="C", content_id="a", exam_name="A")
        for learner in learners:
            publishers[0].upsert_learner(user_id=learner.user_id, username="u", email="u@example.org")
        yield Traffic(publishers, learners)


def _publish_first(publisher: Publisher) -> None:
    """Publish the course, as soon as the broker says how many shards there are."""
    give_up = time.monotonic() + PATIENCE_S
    while True:
        try:
            publisher.upsert_course(course_id="C", command_id="course")
        except PublishError:
            assert time.monotonic() < give_up
            time.sleep(0.1)
        else:
            return


def _flow(learners: Sequence[Learner], enough: threading.Event) -> None:
    cycle = 0
    while not enough.is_set():
        for learner in learners:
            learner.live(cycle)
        cycle += 1
        time.sleep(0.1)


def outcomes(engine: Engine) -> dict[str, int]:
    """How many commands have each outcome."""
    with engine.begin() as connection:
        rows = connection.execute(text("SELECT outcome, count(*) FROM outcomes GROUP BY outcome"))
        return {row[0]: row[1] for row in rows}


def quarantined(engine: Engine) -> list[tuple[str, str]]:
    """What is in the quarantine, and why."""
    with engine.begin() as connection:
        return [
            (row.code, row.detail) for row in connection.execute(text("SELECT code, detail FROM quarantine"))
        ]
