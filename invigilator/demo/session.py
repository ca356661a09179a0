"""Generates the session from a seed: every message that its LMS publishes, in order. Pure: no I/O, no clock."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import count

from events.commands import (
    AttemptCreate,
    AttemptRemove,
    AttemptUpdateStatus,
    Command,
    CommandData,
    CourseUpsert,
    ExamUpsert,
    LearnerUpsert,
)
from invigilator.demo.malformed import Malformed, malformed_messages
from invigilator.demo.stories import STORIES, Actor, ExamRole, exam_id

COURSE_NAME = "Thinking in Proofs"
LEARNERS = 240
IN_THE_ROOM = 60
"""The number of learners whose commands are interleaved. When one has finished, the next begins."""
DUPLICATED = 0.05
"""The fraction of commands that are published twice."""
REUSED_IDS = 4
"""The number of command ids that are used again for another command."""
SECOND_COPY_WITHIN = 80
"""The largest distance between two messages with the same id, in messages."""
STEP = timedelta(milliseconds=20)

Message = Command | Malformed


@dataclass(frozen=True, slots=True)
class Session:
    """A session's messages, and the ids by which its results are recognised.

    Parameters:
        run: a part of every id, so that another session can be played on the same database.
        messages: the messages in the order in which they are published.
    """

    run: str
    messages: Sequence[Message]

    @property
    def source(self) -> str:
        """The source of every command of the session, and so of every effect."""
        return source_of(self.run)

    @property
    def course_id(self) -> str:
        """The session's course."""
        return f"demo-{self.run}"

    @property
    def mail_domain(self) -> str:
        """The domain of the learners' e-mail addresses."""
        return mail_domain_of(self.run)

    @property
    def exam_ids(self) -> list[str]:
        """The ids of the exams that the session announces."""
        return list(dict.fromkeys(data.exam_id for data in self._data() if isinstance(data, ExamUpsert)))

    @property
    def learner_ids(self) -> list[str]:
        """The ids of the learners that the session announces."""
        return list(dict.fromkeys(data.user_id for data in self._data() if isinstance(data, LearnerUpsert)))

    def _data(self) -> Iterator[CommandData]:
        return (message.data for message in self.messages if isinstance(message, Command))


def source_of(run: str) -> str:
    """Return the source of a session's commands."""
    return f"/demo/{run}"


def mail_domain_of(run: str) -> str:
    """Return the domain of the e-mail addresses of a session's learners."""
    return f"{run}.example.org"


def generate(run: str, *, seed: int, start: datetime, learners: int = LEARNERS) -> Session:
    """Generate a session. The same arguments give the same session.

    Parameters:
        run: a short word that no earlier session used.
        seed: the seed of all random choices: stories, interleaving, duplicates and reused ids.
        start: the time of the first command, as an aware datetime.
        learners: the number of learners, at least one for each story.

    Raises:
        ValueError: there are fewer learners than stories.
    """
    chance = random.Random(seed)  # noqa: S311 - repeatable, not secret
    course_id = f"demo-{run}"
    data = [*_announcements(course_id), *_interleaved(_scripts(run, course_id, learners, chance), chance)]
    numbers = count(1)
    messages: list[Message] = [
        Command(source_of(run), f"{run}-{number}", item, start + number * STEP)
        for number, item in zip(numbers, data, strict=False)
    ]
    _publish_some_twice(messages, chance)
    _reuse_some_ids(messages, chance)
    for message in malformed_messages(run):
        messages.insert(chance.randrange(len(messages)), message)
    return Session(run, tuple(messages))


def _announcements(course_id: str) -> Iterator[CommandData]:
    yield CourseUpsert(course_id=course_id, name=COURSE_NAME, provider="demo")
    for role in (ExamRole.MIDTERM, ExamRole.FINAL, ExamRole.PRACTICE, ExamRole.TIMED):
        yield ExamUpsert(
            exam_id=exam_id(course_id, role),
            course_id=course_id,
            content_id=role,
            exam_name=f"{role.capitalize()} exam",
            is_proctored=role is not ExamRole.TIMED,
            is_practice_exam=role is ExamRole.PRACTICE,
            time_limit_mins=90 if role is ExamRole.TIMED else None,
        )


def _scripts(run: str, course_id: str, learners: int, chance: random.Random) -> list[list[CommandData]]:
    """What each learner's commands are, in order. Every story is told; the rest is drawn."""
    if learners < len(STORIES):
        raise ValueError(f"learners must be at least {len(STORIES)}, one for each story")
    stories = [*STORIES.values(), *chance.choices(list(STORIES.values()), k=learners - len(STORIES))]
    chance.shuffle(stories)
    scripts = []
    for number, story in enumerate(stories, start=1):
        user_id = f"{run}-learner-{number}"
        scripts.append([_learner(run, user_id, number), *story(Actor(user_id, course_id))])
    stranger = Actor(f"{run}-stranger", course_id).at(ExamRole.MIDTERM)  # never announced
    scripts.append([stranger.create(), stranger.move("started")])
    return scripts


def _learner(run: str, user_id: str, number: int) -> CommandData:
    # Every fifth learner has no full name. The mail then addresses the learner by username.
    return LearnerUpsert(
        user_id=user_id,
        username=user_id,
        email=f"learner-{number}@{mail_domain_of(run)}",
        full_name=f"Learner No. {number}" if number % 5 else None,
    )


def _interleaved(scripts: list[list[CommandData]], chance: random.Random) -> Iterator[CommandData]:
    """Interleave the scripts at random. The order within each script stays."""
    waiting = iter(scripts)
    room = [iter(script) for _, script in zip(range(IN_THE_ROOM), waiting, strict=False)]
    while room:
        place = chance.randrange(len(room))
        data = next(room[place], None)
        if data is not None:
            yield data
            continue
        script = next(waiting, None)
        if script is None:
            del room[place]
        else:
            room[place] = iter(script)


def _publish_some_twice(messages: list[Message], chance: random.Random) -> None:
    for message in chance.sample(messages, k=round(len(messages) * DUPLICATED)):
        _insert_later(messages, message, message, chance)


def _reuse_some_ids(messages: list[Message], chance: random.Random) -> None:
    about_attempts = [
        message
        for message in messages
        if isinstance(message, Command) and isinstance(message.data, AttemptCreate | AttemptUpdateStatus)
    ]
    for first in chance.sample(about_attempts, k=REUSED_IDS):
        assert isinstance(first.data, AttemptCreate | AttemptUpdateStatus)
        other = AttemptRemove(exam_id=first.data.exam_id, user_id=first.data.user_id)
        _insert_later(messages, first, Command(first.source, first.id, other, first.time), chance)


def _insert_later(messages: list[Message], first: Message, second: Message, chance: random.Random) -> None:
    messages.insert(messages.index(first) + chance.randint(1, SECOND_COPY_WITHIN), second)
