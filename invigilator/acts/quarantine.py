"""Replaying messages in quarantine, and discarding them."""

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from typing import Protocol

from sqlalchemy import Connection

from db import quarantine
from db.quarantine import RawMessage
from events.envelope import CONTENT_TYPE, parse
from events.errors import InvalidMessageError
from events.sharding import shard_of
from events.signing import SIGNATURE_HEADER
from invigilator.acts.actor import Action, Actor
from invigilator.acts.transactions import new_act, record

NO_SUCH_MESSAGE = "no such message"
MAX_CONTENT_TYPE = 255  # bytes, the limit of AMQP
MAX_REPLAYED_BYTES = 4 * 1024 * 1024  # the quarantine may have kept only a part of a larger message


class RawPublisher(Protocol):
    """What publishes a message as it is: a publisher of commands."""

    @property
    def shards(self) -> int:
        """How many queues there are."""
        ...

    def publish_raw(self, body: bytes, shard: int, content_type: str, headers: Mapping[str, str]) -> None:
        """Publish a message to the queue of a shard."""
        ...


def replay(
    connection: Connection, actor: Actor, publisher: RawPublisher, message_id: int, reason: str | None
) -> str | None:
    """Publish a message again, unchanged, and remove it from the quarantine, in the caller's transaction.

    A command goes to the shard of its learner, even if it arrived on another one.

    Returns why it is not replayed. None when it is.

    Raises:
        PublishError: the broker does not take it.
    """
    message = quarantine.lock_message(connection, message_id)
    if message is None:
        return NO_SUCH_MESSAGE
    if message.is_erased:
        return "its learner was erased, and its body with them: discard it"
    if len(message.body) > MAX_REPLAYED_BYTES:
        return f"{len(message.body)} bytes are no command: discard it"
    shard = _right_shard(message, publisher.shards)
    if shard >= publisher.shards:
        return f"its shard {message.shard} does not exist any more: publish its body anew"
    content_type = (message.content_type or CONTENT_TYPE).encode()[:MAX_CONTENT_TYPE]
    headers = {SIGNATURE_HEADER: message.signature} if message.signature else {}
    # Publish first, then delete: a crash in between leaves a second copy, which the inbox recognises. The other
    # order would lose the message.
    publisher.publish_raw(message.body, shard, content_type.decode("utf-8", "ignore"), headers)
    quarantine.discard(connection, [message_id])
    details = {"before": message.about, "after": {"shard": shard}}
    wanted = {"messages": [message_id]}
    act = new_act(
        actor, Action.REPLAY, wanted, number=1, details=details, reason=reason, user_id=message.user_id
    )
    record(connection, act)
    return None


def _right_shard(message: RawMessage, shards: int) -> int:
    """Return the shard of the message's learner, or the shard that it arrived on when it names no learner."""
    with suppress(InvalidMessageError):
        user_id = parse(message.body, message.content_type).data.learner_id
        if user_id is not None:
            return shard_of(user_id, shards)
    return message.shard


def discard(
    connection: Connection, actor: Actor, message_ids: Sequence[int], reason: str | None
) -> Collection[int]:
    """Delete messages, in the caller's transaction. Returns the ids of those that were there."""
    deleted = quarantine.discard(connection, message_ids)
    if deleted:
        wanted, details = {"messages": list(message_ids)}, {"before": list(deleted.values())}
        learners = {message["user_id"] for message in deleted.values()}
        act = new_act(
            actor,
            Action.DISCARD,
            wanted,
            number=len(deleted),
            details=details,
            reason=reason,
            user_id=learners.pop() if len(learners) == 1 else None,
        )
        record(connection, act)
    return deleted.keys()
