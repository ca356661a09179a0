"""The publisher that an LMS imports: commands in, onto the queue that Invigilator reads."""

import threading
from collections.abc import Mapping
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self
from uuid import uuid4

from kombu.exceptions import OperationalError

from events.broker_url import BrokerUrl, Kind, read_broker_url
from events.commands import (
    AttemptCreate,
    AttemptRemove,
    AttemptUpdateStatus,
    Command,
    CommandData,
    CourseUpsert,
    ExamUpsert,
    LearnerUpsert,
    read_data,
)
from events.connecting import Connection, OneClientConnection, reason_of
from events.envelope import CONTENT_TYPE, parse, render
from events.errors import PublishError
from events.sharding import queue_name, shards_of
from events.signing import MIN_KEY_CHARS, SIGNATURE_HEADER, sign
from events.vocabulary import IfMissing, Status

_IN_MEMORY = "memory://"  # for tests

# The broker forgets a publisher that has gone away without a word. Nothing serves the heartbeat between two
# publishes, so it closes the connection of an idle one too; the next publish opens another.
_HEARTBEAT_S = 60

_RETRIES = {"max_retries": 3, "interval_start": 0, "interval_step": 0.5, "interval_max": 2}  # seconds


class Publisher:
    """Publishes commands to Invigilator. Threads may share one; they publish one at a time.

    It connects at the first publish and stays connected. Processes must not share a connection: when a server
    forks its workers, publish only after the fork, or make one Publisher in each worker.

    After a `PublishError` nobody knows whether the command has arrived. Publish it again with the same id:
    Invigilator takes the two for one command.

    Parameters:
        broker_url: `redis://`, `rediss://`, `sentinel://`, `sentinels://`, `amqp://` or `amqps://`, as in
            `INVIGILATOR_BROKER_URL`. With an `s` the connection is encrypted and the broker's certificate checked.
            Sentinels, and nodes of RabbitMQ, may be several; see `events.broker_url.read_broker_url`.
        source: who publishes, 1 to 255 characters, for example `/lms/acme`. It and an id name one command.
        shards: how many Invigilator has, as in `INVIGILATOR_COMMAND_SHARDS`.
        timeout_s: seconds that the broker has to connect, to take a message and to confirm it, each. A broken
            connection is tried again a few times.
        signing_key: a key of `source`, as in the file of `INVIGILATOR_COMMAND_KEYS_FILE`, at least 32
            characters; every message is signed with it. None: nothing is signed.
        reuse_redis_client: on Redis, use one client where kombu makes one for each message, which takes half of a
            publish. It needs a detail of kombu (`events.redis_transport`): False leaves kombu as it is, should a
            newer one not have it any more.

    Raises:
        ValueError: the URL, the number of shards or the key cannot be right.

    Example:
        >>> with Publisher("redis://localhost", source="/lms/acme") as publisher:
        ...     publisher.update_status(exam_id="7", user_id="42", to_status="submitted")
    """

    def __init__(
        self,
        broker_url: str,
        *,
        source: str,
        shards: int = 1,
        timeout_s: float = 10,
        signing_key: str | None = None,
        reuse_redis_client: bool = True,
    ) -> None:
        if shards < 1:
            raise ValueError("shards must be at least 1")
        if signing_key is not None and len(signing_key) < MIN_KEY_CHARS:
            raise ValueError(f"signing_key must have at least {MIN_KEY_CHARS} characters")
        self.source = source
        self.shards = shards
        self._signing_key = signing_key
        self._timeout_s = timeout_s
        self._lock = threading.Lock()
        self._returned: list[str] = []
        broker = _read(broker_url)
        self._connection = _connection(broker, timeout_s, reuse_redis_client)
        self._producer: Any = None
        self._mandatory = broker is not None and broker.kind is Kind.AMQP

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection, if there is one. A later publish opens it again."""
        with self._lock:
            self._producer = None
            self._connection.release()

    def upsert_course(
        self,
        *,
        course_id: str | int,
        name: str | None = None,
        provider: str | None = None,
        command_id: str | None = None,
        time: datetime | None = None,
    ) -> str:
        """Publish a course's details. For the parameters from here on see the contract, under *Commands in*.

        Parameters:
            command_id: the command's id; a new one when left out.
            time: when it happened, with an offset; now when left out.

        Returns:
            the command's id.

        Raises:
            InvalidMessageError: an argument is wrong; nothing was sent.
            PublishError: the broker did not take it.
        """
        fields = {"course_id": course_id, "name": name, "provider": provider}
        return self._publish_new(CourseUpsert, fields, command_id, time)

    def upsert_exam(
        self,
        *,
        exam_id: str | int,
        course_id: str | int,
        content_id: str | int,
        exam_name: str,
        is_proctored: bool = True,
        is_practice_exam: bool = False,
        is_active: bool = True,
        time_limit_mins: int | None = None,
        command_id: str | None = None,
        time: datetime | None = None,
    ) -> str:
        """Publish an exam's details. Returns and raises as `upsert_course`."""
        fields = {
            "exam_id": exam_id,
            "course_id": course_id,
            "content_id": content_id,
            "exam_name": exam_name,
            "is_proctored": is_proctored,
            "is_practice_exam": is_practice_exam,
            "is_active": is_active,
            "time_limit_mins": time_limit_mins,
        }
        return self._publish_new(ExamUpsert, fields, command_id, time)

    def upsert_learner(
        self,
        *,
        user_id: str | int,
        username: str,
        email: str,
        full_name: str | None = None,
        command_id: str | None = None,
        time: datetime | None = None,
    ) -> str:
        """Publish a learner's details. Returns and raises as `upsert_course`."""
        fields = {"user_id": user_id, "username": username, "email": email, "full_name": full_name}
        return self._publish_new(LearnerUpsert, fields, command_id, time)

    def create_attempt(
        self,
        *,
        exam_id: str | int,
        user_id: str | int,
        taking_as_proctored: bool = False,
        external_id: str | int | None = None,
        command_id: str | None = None,
        time: datetime | None = None,
    ) -> str:
        """Ask for an attempt of a learner at an exam. Returns and raises as `upsert_course`."""
        fields = {
            "exam_id": exam_id,
            "user_id": user_id,
            "taking_as_proctored": taking_as_proctored,
            "external_id": external_id,
        }
        return self._publish_new(AttemptCreate, fields, command_id, time)

    def update_status(
        self,
        *,
        exam_id: str | int,
        user_id: str | int,
        to_status: Status | str | None,
        cascade_effects: bool = True,
        if_missing: IfMissing | str = IfMissing.REJECT,
        command_id: str | None = None,
        time: datetime | None = None,
    ) -> str:
        """Ask for another status of a learner's attempt. Returns and raises as `upsert_course`."""
        fields = {
            "exam_id": exam_id,
            "user_id": user_id,
            "to_status": to_status,
            "cascade_effects": cascade_effects,
            "if_missing": if_missing,
        }
        return self._publish_new(AttemptUpdateStatus, fields, command_id, time)

    def remove_attempt(
        self,
        *,
        exam_id: str | int,
        user_id: str | int,
        requested_by: str | None = None,
        command_id: str | None = None,
        time: datetime | None = None,
    ) -> str:
        """Ask for the removal of a learner's attempt. Returns and raises as `upsert_course`."""
        fields = {"exam_id": exam_id, "user_id": user_id, "requested_by": requested_by}
        return self._publish_new(AttemptRemove, fields, command_id, time)

    def publish(self, command: Command, *, signing_key: str | None = None) -> None:
        """Publish a command to its learner's shard, or to every shard when it belongs to no learner.

        Parameters:
            command: its source may be another than this publisher's.
            signing_key: a key of that source, instead of this publisher's.

        Raises:
            InvalidMessageError: the command is not valid; nothing was sent.
            PublishError: the broker did not take it.
        """
        body = render(command)
        parsed = parse(body)  # what Invigilator would not understand is not sent
        headers = _signature(body, signing_key or self._signing_key)
        for shard in shards_of(parsed.data, self.shards):
            self._send(body, queue_name(shard), CONTENT_TYPE, headers, parsed.id)

    def publish_raw(
        self,
        body: bytes,
        shard: int,
        content_type: str = CONTENT_TYPE,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Publish bytes as they are, valid or not: for replaying, or testing, what is in quarantine.

        Parameters:
            body: any bytes.
            shard: which queue, counted from 0.
            content_type: as the broker will name it.
            headers: the message's; a signature among them stays, instead of this publisher's.

        Raises:
            ValueError: there is no such shard.
            PublishError: the broker did not take it.
        """
        if not 0 <= shard < self.shards:
            raise ValueError(f"shard must be from 0 to {self.shards - 1}")
        headers = {**_signature(body, self._signing_key), **(headers or {})}
        self._send(body, queue_name(shard), content_type, headers, None)

    def _publish_new(
        self,
        model: type[CommandData],
        fields: Mapping[str, Any],
        command_id: str | None,
        time: datetime | None,
    ) -> str:
        command = Command(
            source=self.source,
            id=str(uuid4()) if command_id is None else command_id,
            data=read_data(model, fields),
            time=datetime.now(UTC) if time is None else time,
        )
        self.publish(command)
        return command.id

    def _send(
        self, body: bytes, queue: str, content_type: str, headers: Mapping[str, str], command_id: str | None
    ) -> None:
        failures = (
            OperationalError,
            *self._connection.connection_errors,
            *self._connection.channel_errors,
        )
        with self._lock:
            try:
                self._publish(body, queue, content_type, headers)
            except failures as error:
                self._disconnect()
                raise PublishError(
                    f"the broker did not take the message ({reason_of(error)}); "
                    "check that it is up and that the URL is right, then publish again with the same id",
                    command_id,
                ) from error
            if self._returned:
                raise PublishError(
                    f"there is no queue {queue}; check the number of shards, start Invigilator's consumer, "
                    "which makes the queues, and publish again with the same id",
                    command_id,
                )

    def _publish(self, body: bytes, queue: str, content_type: str, headers: Mapping[str, str]) -> None:
        if self._producer is None:
            self._producer = self._connection.Producer(on_return=self._on_return if self._mandatory else None)
        self._returned.clear()
        publish = self._connection.ensure(self._producer, self._producer.publish, **_RETRIES)
        publish(
            body,
            exchange="",
            routing_key=queue,
            delivery_mode="persistent",
            mandatory=self._mandatory,
            content_type=content_type,
            content_encoding="utf-8",
            headers=dict(headers),
            timeout=self._timeout_s,
            confirm_timeout=self._timeout_s,
        )

    def _on_return(self, _error: Exception, _exchange: str, routing_key: str, _message: object) -> None:
        # RabbitMQ returns what it cannot route, and confirms it all the same, right after. Raising here would
        # leave that confirmation unread, to be taken for the next message's. So only note it.
        self._returned.append(routing_key)

    def _disconnect(self) -> None:
        # A confirmation that is still under way must not be taken for the next message's.
        self._producer = None
        self._connection.collect(socket_timeout=self._timeout_s)


def _signature(body: bytes, key: str | None) -> dict[str, str]:
    return {} if key is None else {SIGNATURE_HEADER: sign(body, key)}


def _connection(broker: BrokerUrl | None, timeout_s: float, reuse_redis_client: bool) -> Any:
    if broker is None:
        return Connection(_IN_MEMORY, transport_options=_RETRIES)
    kind = OneClientConnection if reuse_redis_client else Connection
    return kind.to(
        broker,
        timeout_s=timeout_s,
        heartbeat=_HEARTBEAT_S,
        transport_options=_transport_options(broker.kind, timeout_s),
    )


def _read(broker_url: str) -> BrokerUrl | None:
    if broker_url == _IN_MEMORY:
        return None
    try:
        return read_broker_url(broker_url)
    except ValueError as error:
        raise ValueError(f"broker_url {error}") from None


def _transport_options(kind: Kind, timeout_s: float) -> dict[str, Any]:
    # The retries stand here too: without them, kombu tries to make its first connection for ever.
    if kind is Kind.AMQP:
        # The time-outs bound closing, too, which waits for the broker's answer.
        return {
            **_RETRIES,
            "confirm_publish": True,
            "read_timeout": timeout_s,
            "write_timeout": timeout_s,
        }
    return {**_RETRIES, "socket_timeout": timeout_s, "socket_connect_timeout": timeout_s}
