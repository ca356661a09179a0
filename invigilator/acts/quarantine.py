"""Replaying messages in quarantine, and discarding them."""

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Protocol
from uuid import uuid4

from sqlalchemy import Connection, Engine

from db import quarantine, resharding
from db.acts import NewAct
from db.quarantine import RawMessage
from events.envelope import CONTENT_TYPE, parse
from events.errors import InvalidMessageError, PublishError
from events.sharding import shard_of
from events.signing import SIGNATURE_HEADER
from invigilator.acts.actor import Action, Actor
from invigilator.acts.transactions import acting, new_act, record

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


@dataclass(frozen=True, slots=True)
class Gone:
    """A message that has left the quarantine.

    Parameters:
        before: what is known of it.
        after: where it went. None if it was deleted.
    """

    before: Mapping[str, Any]
    after: Mapping[str, Any] | None = None


# --- replaying ---------------------------------------------------------------------------------------------


def replay(
    engine: Engine, actor: Actor, publisher: RawPublisher, message_ids: Sequence[int], reason: str | None
) -> dict[int, str]:
    """Publish messages again, unchanged, and remove them from the quarantine, each in a transaction of its own.

    The act has a row for each of them, and a closing one if several were named. When the broker does not take one,
    the others are not tried.

    Parameters:
        message_ids: each counts once.
        reason: why, in the actor's words.

    Returns:
        why messages were not replayed.
    """
    chosen = list(dict.fromkeys(message_ids))
    act_id, is_one, refused, away = uuid4(), len(chosen) == 1, dict[int, str](), ""
    for one in chosen:
        try:
            with acting(engine) as connection:
                found = away or republish(connection, publisher, one)
                if isinstance(found, Gone):
                    act = act_on(actor, Action.REPLAY, {"messages": [one]}, [found], reason)
                    record(connection, replace(act, act_id=act_id, closing=is_one))
        except PublishError as error:  # the broker would refuse the others after the same wait
            found = away = str(error)
        if isinstance(found, str):
            refused[one] = found
    if not is_one and len(refused) < len(chosen):
        act = act_on(actor, Action.REPLAY, {"messages": chosen}, [], reason)
        number, details = len(chosen) - len(refused), {"refused": len(refused)}
        with acting(engine) as connection:
            record(connection, replace(act, act_id=act_id, number=number, details=details))
    return refused


def republish(connection: Connection, publisher: RawPublisher, message_id: int) -> Gone | str:
    """Publish a message again, unchanged, and remove it from the quarantine, in the caller's transaction.

    A command goes to the shard of its learner, even if it arrived on another one. The caller writes the act.

    Returns the message. A text says why it is not replayed.

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
    # The publisher knows the number of shards only once it has published.
    shards = resharding.read(connection).number or publisher.shards
    shard = _right_shard(message, shards)
    if shard >= shards:
        return f"its shard {message.shard} does not exist any more: publish its body anew"
    content_type = (message.content_type or CONTENT_TYPE).encode()[:MAX_CONTENT_TYPE]
    headers = {SIGNATURE_HEADER: message.signature} if message.signature else {}
    # Publish first, then delete: a crash in between leaves a second copy, which the inbox recognises. The other
    # order would lose the message.
    publisher.publish_raw(message.body, shard, content_type.decode("utf-8", "ignore"), headers)
    quarantine.discard(connection, [message_id])
    return Gone(message.about, {"shard": shard})


def _right_shard(message: RawMessage, shards: int) -> int:
    """Return the shard of the message's learner, or the shard that it arrived on when it names no learner."""
    with suppress(InvalidMessageError):
        user_id = parse(message.body, message.content_type).data.learner_id
        if user_id is not None:
            return shard_of(user_id, shards)
    return message.shard


# --- discarding --------------------------------------------------------------------------------------------


def discard(
    connection: Connection, actor: Actor, message_ids: Sequence[int], reason: str | None
) -> Collection[int]:
    """Delete messages, in the caller's transaction. Returns the ids of those that were there."""
    deleted = delete(connection, message_ids)
    if deleted:
        record(connection, act_on(actor, Action.DISCARD, {"messages": list(message_ids)}, deleted, reason))
    return [one.before["id"] for one in deleted]


def delete(connection: Connection, message_ids: Sequence[int]) -> list[Gone]:
    """Delete messages, in the caller's transaction. The caller writes the act. Returns those that were there."""
    return [Gone(about) for about in quarantine.discard(connection, message_ids).values()]


# --- the audit ---------------------------------------------------------------------------------------------


def act_on(
    actor: Actor, action: Action, wanted: Mapping[str, Any], gone: Sequence[Gone], reason: str | None
) -> NewAct:
    """Return the row of an act on messages.

    Parameters:
        wanted: which messages were meant.
        gone: those that have left the quarantine.
        reason: why, in the actor's words.
    """
    learners = {one.before["user_id"] for one in gone}
    after = [one.after for one in gone if one.after is not None]
    return new_act(
        actor,
        action,
        wanted,
        number=len(gone),
        details={"before": [one.before for one in gone], **({"after": after} if after else {})},
        reason=reason,
        user_id=learners.pop() if len(learners) == 1 else None,
    )
