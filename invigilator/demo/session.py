"""The session: everything that its LMS publishes, in order, from a seed. Pure."""

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
"""How many learners take turns; one who has finished makes room for the next."""
DUPLICATED = 0.05
"""The part of the commands that arrive twice."""
REUSED_IDS = 4
SECOND_COPY_WITHIN = 80  # messages
STEP = timedelta(milliseconds=20)

Message = Command | Malformed


@dataclass(frozen=True, slots=True)
class Session:
    """A session and the ids by which everything that comes of it is recognised.

    Parameters:
        run: part of every id, so that a session can be repeated on the same database.
        messages: in the order in which they are published.
    """

    run: str
    messages: Sequence[Message]

    @property
    def source(self) -> str:
        """Of every command, and so of every effect that follows."""
        return source_of(self.run)

    @property
    def course_id(self) -> str:
        """The session's course."""
        return f"demo-{self.run}"

    @property
    def mail_domain(self) -> str:
        """What the addresses of its learners end with."""
        return mail_domain_of(self.run)

    @property
    def exam_ids(self) -> list[str]:
        """The exams that exist."""
        return list(dict.fromkeys(data.exam_id for data in self._data() if isinstance(data, ExamUpsert)))

    @property
    def learner_ids(self) -> list[str]:
        """The learners that exist."""
        return list(dict.fromkeys(data.user_id for data in self._data() if isinstance(data, LearnerUpsert)))

    def _data(self) -> Iterator[CommandData]:
        return (message.data for message in self.messages if isinstance(message, Command))


def source_of(run: str) -> str:
    """Who publishes the session."""
    return f"/demo/{run}"


def mail_domain_of(run: str) -> str:
    """Where the learners of a session have their mail."""
    return f"{run}.example.org"


def generate(run: str, *, seed: int, start: datetime, learners: int = LEARNERS) -> Session:
    """Write a session: the same for the same arguments.

    Parameters:
        run: a short word that no session before had.
        seed: chooses stories, turns, and what goes wrong.
        start: the time of the first command, with an offset.
        learners: how many take part; at least one for each story.
    """
    chance = random.Random(seed)  # noqa: S311 - repeatable, not secret
    course_id = f"demo-{run}"
    data = [*_announcements(course_id), *_turns(_plays(run, course_id, learners, chance), chance)]
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


def _plays(run: str, course_id: str, learners: int, chance: random.Random) -> list[list[CommandData]]:
    """What each learner's commands are, in order. Every story is told; the rest is drawn."""
    if learners < len(STORIES):
        raise ValueError(f"learners must be at least {len(STORIES)}, one for each story")
    stories = [*STORIES.values(), *chance.choices(list(STORIES.values()), k=learners - len(STORIES))]
    chance.shuffle(stories)
    plays = []
    for number, story in enumerate(stories, start=1):
        user_id = f"{run}-learner-{number}"
        plays.append([_learner(run, user_id, number), *story(Actor(user_id, course_id))])
    stranger = Actor(f"{run}-stranger", course_id)
    plays.append([stranger.create(ExamRole.MIDTERM), stranger.move(ExamRole.MIDTERM, "started")])
    return plays


def _learner(run: str, user_id: str, number: int) -> CommandData:
    # One in five gives no name: the mail then greets by the username.
    return LearnerUpsert(
        user_id=user_id,
        username=user_id,
        email=f"learner-{number}@{mail_domain_of(run)}",
        full_name=f"Learner No. {number}" if number % 5 else None,
    )


def _turns(plays: list[list[CommandData]], chance: random.Random) -> Iterator[CommandData]:
    """All plays, interleaved at random; each one's own order stays."""
    waiting = iter(plays)
    room = [iter(play) for _, play in zip(range(IN_THE_ROOM), waiting, strict=False)]
    while room:
        place = chance.randrange(len(room))
        data = next(room[place], None)
        if data is not None:
            yield data
            continue
        play = next(waiting, None)
        if play is None:
            del room[place]
        else:
            room[place] = iter(play)


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
