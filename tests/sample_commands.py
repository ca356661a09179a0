"""Commands for tests, in few words."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from itertools import count
from typing import Any

from sqlalchemy import Connection, text

from db import batch
from db.ids import Receipt, new_receipt
from db.inbox import Handled
from db.quarantine import Unreadable
from db.shards import Fence, Renewal
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
from events.envelope import render
from events.sharding import shard_of
from worker.commands import command_types
from worker.commands.decoding import Received
from worker.commands.handler import Handler, Written
from worker.commands.sources import Message

_numbers = count(1)

COURSE = "course-1"


def command(data: CommandData, command_id: str | None = None, traceparent: str | None = None) -> Command:
    """A command with an id of its own."""
    return Command("/tests", command_id or f"c{next(_numbers)}", data, traceparent=traceparent)


def stamped(data: CommandData, command_id: str | None = None) -> tuple[Command, Receipt]:
    """A command as the handler applies it."""
    return command(data, command_id), new_receipt()


def received(data: CommandData, command_id: str | None = None) -> Received:
    """A command as it comes out of a message."""
    one = command(data, command_id)
    return Received(one, new_receipt(), Message(render(one), None), one.fingerprint())


def who_goes(before: int, after: int) -> Iterator[str]:
    """Learners of a shard of two who are those of another shard of four."""
    return (user for user in map(str, count()) if (shard_of(user, 2), shard_of(user, 4)) == (before, after))


def course(provider: str | None = None) -> CourseUpsert:
    return CourseUpsert(course_id=COURSE, name="Physics", provider=provider)


def exam(exam_id: str, **other: Any) -> ExamUpsert:
    fields = {
        "course_id": COURSE,
        "content_id": f"content-{exam_id}",
        "exam_name": f"Exam {exam_id}",
        **other,
    }
    return ExamUpsert(exam_id=exam_id, **fields)


def learner(user_id: str = "42") -> LearnerUpsert:
    return LearnerUpsert(
        user_id=user_id, username=f"user-{user_id}", email=f"u{user_id}@example.org", full_name="Ada Lovelace"
    )


def create(exam_id: str, user_id: str = "42", **other: Any) -> AttemptCreate:
    return AttemptCreate(exam_id=exam_id, user_id=user_id, **other)


def update(exam_id: str, to_status: str | None, user_id: str = "42", **other: Any) -> AttemptUpdateStatus:
    return AttemptUpdateStatus(exam_id=exam_id, user_id=user_id, to_status=to_status, **other)


def remove(exam_id: str, user_id: str = "42", **other: Any) -> AttemptRemove:
    return AttemptRemove(exam_id=exam_id, user_id=user_id, **other)


def apply(
    handler: Handler, connection: Connection, commands: Sequence[tuple[Command, Receipt]]
) -> list[Handled]:
    """Decide commands and write what follows, without inbox and outcomes."""
    learners = {one.data.learner_id for one, _ in commands if one.data.learner_id is not None}
    found = batch.lock_and_read(connection, learners, command_types.needs_of(one for one, _ in commands))
    unit_of_work, outcomes = handler.decide(commands, found, datetime.now(UTC))
    unit_of_work.write(connection)
    return outcomes


def handle(
    handler: Handler,
    connection: Connection,
    received: Sequence[Received],
    unreadable: Sequence[Unreadable] = (),
    shard: int = 0,
) -> Written:
    """Handle a batch as the owner of a shard, and leave the shard as it was."""
    of_shard = {"shard": shard}
    found = connection.execute(text("SELECT * FROM shards WHERE shard = :shard FOR UPDATE"), of_shard)
    before = found.mappings().one_or_none()
    if before is None:
        connection.execute(text("INSERT INTO shards (shard, epoch) VALUES (:shard, 0)"), of_shard)
    connection.execute(
        text("UPDATE shards SET owner = 'tests', lease_until = now(), epoch = -1 WHERE shard = :shard"),
        of_shard,
    )
    quarantined = handler.handle(
        connection, Renewal(Fence(shard, "tests", -1), 60, len(received)), received, unreadable
    )
    if before is None:
        connection.execute(text("DELETE FROM shards WHERE shard = :shard"), of_shard)
    else:
        restore = "owner = :owner, lease_until = :lease_until, epoch = :epoch"
        connection.execute(text(f"UPDATE shards SET {restore} WHERE shard = :shard"), dict(before))
    return quarantined
