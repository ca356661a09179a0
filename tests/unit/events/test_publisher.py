"""The publisher over kombu's in-memory transport: the messages that it sends, and its errors."""

import asyncio
import inspect
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from kombu.connection import Connection
from kombu.transport.memory import Channel, Transport

from events import publisher as publishing
from events.broker_url import Kind
from events.commands import AttemptCreate, AttemptUpdateStatus, Command
from events.connecting import OneClientConnection
from events.envelope import AWAITED_HEADER, CONTENT_TYPE, MAX_BODY_BYTES, parse
from events.errors import InvalidMessageError, PublishError
from events.publisher import AsyncPublisher, Publisher
from events.sharding import queue_name, shard_of
from events.signing import SIGNATURE_HEADER, sign
from events.vocabulary import IfMissing, QuarantineCode, Status
from tests.unit.events.messages import TRACE

NINE = datetime(2026, 3, 1, 9, tzinfo=UTC)

# A call of each method, and the data that must arrive.
WHICH = {
    "attempt_code": "a1",
    "external_id": "x",
    "from_statuses": (Status.STARTED, Status.READY_TO_SUBMIT),
    "if_missing": IfMissing.IGNORE,
}
CALLS: list[tuple[Callable[..., str], dict[str, Any]]] = [
    (
        Publisher.upsert_course,
        {"course_id": "c1", "name": "Maths", "provider": "acme", "gives_credit": False},
    ),
    (
        Publisher.upsert_exam,
        {
            "exam_id": "7",
            "course_id": "c1",
            "content_id": "b1",
            "exam_name": "Finals",
            "is_proctored": False,
            "is_practice_exam": True,
            "is_active": False,
            "time_limit_mins": 90,
        },
    ),
    (
        Publisher.upsert_learner,
        {
            "user_id": "42",
            "username": "ada",
            "email": "ada@example.com",
            "full_name": "Ada Lovelace",
            "language": "en-GB",
            "time_zone": "Europe/London",
        },
    ),
    (
        Publisher.create_attempt,
        {
            "exam_id": "7",
            "user_id": "42",
            "attempt_code": "a1",
            "taking_as_proctored": True,
            "external_id": "x",
        },
    ),
    (
        Publisher.update_status,
        {
            "exam_id": "7",
            "user_id": "42",
            "to_status": Status.SUBMITTED,
            "cascade_effects": False,
            **WHICH,
        },
    ),
    (
        Publisher.remove_attempt,
        {"exam_id": "7", "user_id": "42", "requested_by": "the dean", **WHICH},
    ),
]


@pytest.fixture(autouse=True)
def _empty_queues() -> Iterator[None]:
    Channel.queues.clear()
    yield
    Channel.queues.clear()


@pytest.fixture
def publisher() -> Iterator[Publisher]:
    with Publisher("memory://", source="/lms/acme", shards=4) as publisher:
        yield publisher


@pytest.fixture
def rabbitmq_publisher(monkeypatch: pytest.MonkeyPatch) -> Publisher:
    """A publisher that takes its broker for RabbitMQ. Messages for shard 1 are returned, then confirmed."""

    def publish(channel: Any, message: object, exchange: str, routing_key: str, **_: object) -> None:
        for callback in channel.events["basic_return"] if routing_key == queue_name(1) else ():
            callback(Exception("NO_ROUTE"), exchange, routing_key, message)

    monkeypatch.setattr(Channel, "basic_publish", publish)
    transports = {**OneClientConnection.transports, "amqp": "memory"}
    monkeypatch.setattr(OneClientConnection, "transports", transports)
    # There are no streams in memory.
    silent = replace(publishing._MANNERS[Kind.AMQP], ask_shards=None)  # noqa: SLF001
    monkeypatch.setattr(publishing, "_MANNERS", {Kind.AMQP: silent})
    return Publisher("amqp://", source="/lms/acme", shards=2)


def messages_in(shard: int) -> list[Any]:
    queue = Channel.queues.get(queue_name(shard))
    return list(queue.queue) if queue else []


def commands_in(shard: int) -> list[Command]:
    with Connection("memory://") as connection:
        channel = connection.default_channel
        return [parse(channel.message_to_python(raw).body, raw["content-type"]) for raw in messages_in(shard)]


@pytest.mark.parametrize(("method", "fields"), CALLS)
def test_each_method_publishes_its_command(
    publisher: Publisher, method: Callable[..., str], fields: dict[str, Any]
) -> None:
    # When a command is published with everything that it can carry
    returned = method(publisher, **fields, command_id="5f0c", time=NINE, traceparent=TRACE)

    # Then it arrives as it was meant, on the first shard or its learner's
    shard = shard_of("42", 4) if "user_id" in fields else 0
    [command] = commands_in(shard)
    assert (command.source, command.id, command.time) == ("/lms/acme", "5f0c", NINE)
    assert command.traceparent == TRACE
    assert command.data.model_dump() == fields
    assert returned == "5f0c"


def test_what_is_left_out_is_not_sent(publisher: Publisher) -> None:
    publisher.upsert_exam(exam_id=7, course_id="c1", content_id="b1", exam_name="Finals", is_active=True)
    publisher.upsert_learner(user_id=42, username="ada", email="ada@example.com", full_name=None)
    publisher.update_status(exam_id=7, user_id=42, to_status="started")
    sent = [command.data.model_fields_set for command in commands_in(shard_of("42", 4))]
    assert sent == [
        {"exam_id", "course_id", "content_id", "exam_name", "is_active"},
        {"user_id", "username", "email", "full_name"},
        {"exam_id", "user_id", "to_status"},
    ]


def test_id_and_time_are_made_when_left_out(publisher: Publisher) -> None:
    before = datetime.now(UTC)

    command_id = publisher.create_attempt(exam_id=7, user_id=42)

    [command] = commands_in(shard_of("42", 4))
    assert command.data == AttemptCreate(exam_id="7", user_id="42")
    assert UUID(command_id).version == 4
    assert command.id == command_id
    assert command.time is not None
    assert before <= command.time <= datetime.now(UTC)


def test_a_command_of_no_learner_goes_to_every_shard_with_one_id(publisher: Publisher) -> None:
    command_id = publisher.upsert_course(course_id="c1")

    assert [[command.id for command in commands_in(shard)] for shard in range(4)] == [[command_id]] * 4


def test_commands_of_a_learner_keep_their_order(publisher: Publisher) -> None:
    ids = [publisher.create_attempt(exam_id=exam, user_id=42) for exam in range(20)]

    # The in-memory transport returns the oldest message first.
    assert [command.id for command in commands_in(shard_of("42", 4))] == ids


def test_messages_are_persistent_json(publisher: Publisher) -> None:
    publisher.create_attempt(exam_id=7, user_id=42)

    [message] = messages_in(shard_of("42", 4))
    assert message["content-type"] == CONTENT_TYPE
    assert message["content-encoding"] == "utf-8"
    assert message["properties"]["delivery_mode"] == 2
    assert message["properties"]["delivery_info"]["exchange"] == ""


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"exam_id": None}, QuarantineCode.INVALID_DATA),
        ({"to_status": 5}, QuarantineCode.INVALID_DATA),
        ({"if_missing": "perhaps"}, QuarantineCode.INVALID_DATA),
        ({"command_id": ""}, QuarantineCode.NOT_CLOUDEVENT),
        ({"time": datetime(2026, 3, 1)}, QuarantineCode.NOT_CLOUDEVENT),  # noqa: DTZ001
    ],
)
def test_an_invalid_command_is_not_sent(
    publisher: Publisher, wrong: dict[str, Any], reason: QuarantineCode
) -> None:
    fields: dict[str, Any] = {"exam_id": "7", "user_id": "42", "to_status": "submitted"}

    with pytest.raises(InvalidMessageError) as caught:
        publisher.update_status(**(fields | wrong))

    assert caught.value.reason is reason
    assert not any(messages_in(shard) for shard in range(4))


def test_an_invalid_source_is_refused(publisher: Publisher) -> None:
    data = AttemptUpdateStatus(exam_id="7", user_id="42", to_status="submitted")

    with pytest.raises(InvalidMessageError, match="source: "):
        publisher.publish(Command("", "1", data))


class TestRaw:
    """Raw bytes, which are published unchanged."""

    def test_any_bytes_arrive(self, publisher: Publisher) -> None:
        body = b"\xff\0 no JSON"

        publisher.publish_raw(body, 2, "text/plain")

        [message] = messages_in(2)
        with Connection("memory://") as connection:
            assert connection.default_channel.message_to_python(message).body == body
        assert message["content-type"] == "text/plain"

    def test_a_body_of_any_size_arrives(self, publisher: Publisher) -> None:
        publisher.publish_raw(b"x" * (MAX_BODY_BYTES + 1), 0)

        assert messages_in(0)

    @pytest.mark.parametrize("shard", [-1, 4])
    def test_a_shard_that_does_not_exist_is_refused(self, publisher: Publisher, shard: int) -> None:
        with pytest.raises(ValueError, match="shard must be from 0 to 3"):
            publisher.publish_raw(b"{}", shard)


class TestSigning:
    """A signature, which covers the bytes that are published."""

    KEY = "k" * 32
    OTHER = "o" * 32

    def signed_by(self, key: str, shard: int) -> list[bool]:
        signed = []
        for message in messages_in(shard):
            with Connection("memory://") as connection:
                body = connection.default_channel.message_to_python(message).body
            signed.append(message["headers"].get(SIGNATURE_HEADER) == sign(body, key))
        return signed

    @pytest.fixture
    def publisher(self) -> Iterator[Publisher]:
        with Publisher("memory://", source="/lms/acme", shards=2, signing_key=self.KEY) as publisher:
            yield publisher

    def test_every_message_is_signed(self, publisher: Publisher) -> None:
        publisher.upsert_course(course_id="é")
        publisher.publish_raw(b"\xff no JSON", 0)
        publisher.publish_raw(b"{}", 0, headers={"x": "1"})

        assert self.signed_by(self.KEY, 0) == [True] * 3
        assert self.signed_by(self.KEY, 1) == [True]

    def test_another_key_signs_instead(self, publisher: Publisher) -> None:
        command = Command("/review", "1", AttemptCreate(exam_id="7", user_id="42"))
        publisher.publish(command, signing_key=self.OTHER)

        assert self.signed_by(self.OTHER, shard_of("42", 2)) == [True]

    def test_whether_somebody_waits_is_told_beside_it(self, publisher: Publisher) -> None:
        command = Command("/lms/acme", "1", AttemptCreate(exam_id="7", user_id="42"))
        publisher.publish(command, awaited=True)
        publisher.publish(command)

        awaited, other = messages_in(shard_of("42", 2))
        assert awaited["headers"][AWAITED_HEADER] == "1"
        assert AWAITED_HEADER not in other["headers"]
        assert awaited["headers"][SIGNATURE_HEADER] == other["headers"][SIGNATURE_HEADER]

    def test_a_signature_that_is_there_stays(self, publisher: Publisher) -> None:
        publisher.publish_raw(b"{}", 0, headers={SIGNATURE_HEADER: sign(b"{}", self.OTHER)})

        assert self.signed_by(self.OTHER, 0) == [True]

    def test_without_a_key_nothing_is_signed(self) -> None:
        with Publisher("memory://", source="/lms/acme") as publisher:
            publisher.upsert_course(course_id="c1")

        [message] = messages_in(0)
        assert SIGNATURE_HEADER not in message["headers"]

    @pytest.mark.parametrize("key", ["", "secret", "s" * 31])
    def test_a_key_that_is_too_short_is_refused_without_quoting_it(self, key: str) -> None:
        with pytest.raises(ValueError, match=r"^signing_key must have at least 32 characters$"):
            Publisher("memory://", source="/lms/acme", signing_key=key)

    def test_the_key_is_not_printed(self, publisher: Publisher) -> None:
        assert self.KEY not in repr(publisher)


class TestFailures:
    """A broker that refuses a message."""

    def test_a_broken_connection_is_tried_again(
        self, publisher: Publisher, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # Given a connection that breaks once
        publish: Any = Channel.basic_publish
        failures = [ConnectionResetError()]

        def break_once(*arguments: object, **options: object) -> None:
            if failures:
                raise failures.pop()
            publish(*arguments, **options)

        monkeypatch.setattr(Channel, "basic_publish", break_once)
        monkeypatch.setattr(Transport, "connection_errors", (OSError,))

        publisher.publish_raw(b"{}", 0)

        assert not failures
        assert len(messages_in(0)) == 1

    def test_one_that_stays_broken_raises_with_the_commands_id(
        self, publisher: Publisher, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # Given a broker that is away
        def away(*_: object, **__: object) -> None:
            raise ConnectionRefusedError("ada@example.com")

        monkeypatch.setattr(Channel, "basic_publish", away)
        monkeypatch.setattr(Transport, "connection_errors", (OSError,))

        # When a command is published, then the error says with what id to publish it again
        with pytest.raises(PublishError, match="ConnectionRefusedError") as caught:
            publisher.create_attempt(exam_id=7, user_id=42, command_id="5f0c")
        assert caught.value.command_id == "5f0c"
        assert caught.value.__cause__ is not None
        assert "ada@" not in str(caught.value)

        # And once the broker is back, the same publisher publishes
        monkeypatch.undo()
        publisher.create_attempt(exam_id=7, user_id=42, command_id="5f0c")
        assert len(commands_in(shard_of("42", 4))) == 1

    def test_a_message_that_rabbitmq_returns_raises(self, rabbitmq_publisher: Publisher) -> None:
        with pytest.raises(PublishError, match=r"there is no queue invigilator\.commands\.1") as caught:
            rabbitmq_publisher.upsert_course(course_id="c1", command_id="5f0c")

        assert caught.value.command_id == "5f0c"

    def test_the_next_message_is_not_blamed(self, rabbitmq_publisher: Publisher) -> None:
        with pytest.raises(PublishError):
            rabbitmq_publisher.publish_raw(b"{}", 1)

        rabbitmq_publisher.publish_raw(b"{}", 0)


def test_a_closed_publisher_opens_again(publisher: Publisher) -> None:
    publisher.close()
    publisher.close()

    publisher.publish_raw(b"{}", 0)

    assert messages_in(0)


@pytest.mark.parametrize(
    "url",
    [
        "redis://localhost",
        "redis://localhost/",
        "redis://user:secret@localhost:6379/3",
        "rediss://localhost:6379/0",
        "amqp://user:secret@localhost/vhost",
        "amqps://localhost",
    ],
)
def test_a_publisher_does_not_connect_when_it_is_made(url: str) -> None:
    with Publisher(url, source="/lms/acme") as publisher:
        assert "secret" not in repr(publisher)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "secret",
        "localhost:6379/secret",
        "sqs://secret@",
        "redis://user:sec/ret@localhost",
        "redis://:1/secret@localhost",
        "redis://localhost/secret",
        "amqp://user:sec/ret@localhost",
        "amqp://[secret",
    ],
)
def test_a_wrong_url_is_refused_without_quoting_it(url: str) -> None:
    with pytest.raises(ValueError, match=r"^broker_url ") as caught:
        Publisher(url, source="/lms/acme")

    error = caught.value
    assert not any(part in str(error) for part in ("secret", "sec", "ret@"))
    assert error.__suppress_context__ or error.__context__ is None


@pytest.mark.parametrize("shards", [0, "2", 2.0, True])  # from the environment, it is a string
def test_there_is_at_least_one_shard(shards: Any) -> None:
    with pytest.raises(ValueError, match="shards must be at least 1"):
        Publisher("memory://", source="/lms/acme", shards=shards)


@pytest.mark.parametrize("timeout_s", [0, -1, float("nan"), "1", None])
def test_there_is_some_time(timeout_s: Any) -> None:
    with pytest.raises(ValueError, match="timeout_s must be above 0"):
        Publisher("memory://", source="/lms/acme", timeout_s=timeout_s)


def test_a_broker_that_says_nothing_of_shards_has_one() -> None:
    with Publisher("memory://", source="/lms/acme") as publisher:
        publisher.upsert_course(course_id="c1")
        assert publisher.shards == 1


class TestAsync:
    """The same methods, as coroutines."""

    @pytest.mark.parametrize(("method", "fields"), CALLS)
    def test_each_method_publishes_its_command(
        self, method: Callable[..., str], fields: dict[str, Any]
    ) -> None:
        async def publish() -> str:
            async with AsyncPublisher("memory://", source="/lms/acme", shards=4) as publisher:
                call: Callable[..., Coroutine[Any, Any, str]] = getattr(publisher, method.__name__)
                return await call(**fields, command_id="5f0c", time=NINE)

        # When a command is published with everything that it can carry
        assert asyncio.run(publish()) == "5f0c"
        # Then it arrives as it was meant, on the first shard or its learner's
        shard = shard_of("42", 4) if "user_id" in fields else 0
        [command] = commands_in(shard)
        assert (command.source, command.id, command.time) == ("/lms/acme", "5f0c", NINE)
        assert command.data.model_dump() == fields

    def test_commands_and_bytes_are_signed(self) -> None:
        command = Command("/review", "1", AttemptCreate(exam_id="7", user_id="42"))

        async def publish() -> None:
            async with AsyncPublisher("memory://", source="/lms/acme", signing_key="k" * 32) as publisher:
                await publisher.publish(command, signing_key="o" * 32)
                await publisher.publish_raw(b"{}", 0, "text/plain")

        asyncio.run(publish())
        first, second = messages_in(0)
        with Connection("memory://") as connection:
            body = connection.default_channel.message_to_python(first).body
        assert first["headers"][SIGNATURE_HEADER] == sign(body, "o" * 32)
        assert second["headers"][SIGNATURE_HEADER] == sign(b"{}", "k" * 32)
        assert second["content-type"] == "text/plain"

    def test_calls_one_after_the_other_keep_their_order(self) -> None:
        async def publish() -> list[str]:
            async with AsyncPublisher("memory://", source="/lms/acme", shards=4) as publisher:
                calls = [publisher.create_attempt(exam_id=exam, user_id=42) for exam in range(100)]
                return await asyncio.gather(*calls)

        ids = asyncio.run(publish())
        assert [command.id for command in commands_in(shard_of("42", 4))] == ids

    def test_an_invalid_command_raises_when_it_is_awaited(self) -> None:
        async def publish() -> None:
            async with AsyncPublisher("memory://", source="/lms/acme") as publisher:
                call = publisher.create_attempt(exam_id="", user_id=42)
                with pytest.raises(InvalidMessageError):
                    await call

        asyncio.run(publish())
        assert not messages_in(0)

    def test_one_publisher_serves_several_loops(self) -> None:
        publisher = AsyncPublisher("memory://", source="/lms/acme")
        for number in range(3):
            asyncio.run(publisher.publish_raw(b"%d" % number, 0))
        asyncio.run(publisher.close())
        assert len(messages_in(0)) == 3


def test_a_signature_says_what_may_be_left_out() -> None:
    assert " = NOT_GIVEN" in str(inspect.signature(Publisher.upsert_learner))
