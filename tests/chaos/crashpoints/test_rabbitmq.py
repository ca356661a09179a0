"""What RabbitMQ may do to a live `consume`: end its connection, its channel, its queue."""

import signal
from collections.abc import Iterator

import pytest
from kombu import Connection

from events.errors import PublishError
from events.publisher import Publisher
from events.sharding import queue_name
from tests.acceptance.harness import Stack
from tests.acceptance.load import load
from tests.acceptance.oracle import assert_record_of_a_calm_day
from tests.chaos.points import Crash
from tests.chaos.proxy import proxying
from tests.rabbit import restartable_rabbitmq, running_rabbitmq
from worker.commands.sources import BrokerAwayError, open_source

QUEUE = queue_name(0)
BATCH = 5
REFUSAL = b"PRECONDITION_FAILED"
CONSUMER_TIMEOUT = "consumer_timeout = 1000"  # ms


@pytest.fixture
def stack(database_url: str, rabbitmq_url: str) -> Iterator[Stack]:
    with Stack(database_url, rabbitmq_url) as stack:
        yield stack


def test_the_connection_lost_with_a_batch_in_hand(stack: Stack, calm_database_url: str) -> None:
    with proxying(stack.broker_url) as proxy:
        bodies = load(50, seed=41)
        stack.client.publish(bodies)
        process = stack.start(
            "commands",
            crash=Crash("before_fence", "stop", nth=3),
            BATCH_SIZE=BATCH,
            BROKER_URL=proxy.url(stack.broker_url),
        )
        # When the broker takes back what the process has in hand
        stack.wait_until_struck(process)
        proxy.cut()
        stack.wait_until(
            lambda: stack.client.waiting() == len(bodies) - stack.handled(), "all else to wait again"
        )
        # Then the batch is committed, comes again, and is recognised
        process.resume()
        stack.settle_commands()
        assert "the broker is away" in process.output()
        assert_record_of_a_calm_day(stack, calm_database_url)


def test_killed_just_after_it_has_made_the_queue() -> None:
    with restartable_rabbitmq() as rabbit:
        with open_source(rabbit.url, QUEUE, BATCH):
            rabbit.end(signal.SIGKILL)
        rabbit.start()
        # RabbitMQ 3.10 has lost the beginning of the queue, and serves it no more. Then this says so.
        try:
            open_source(rabbit.url, QUEUE, BATCH).close()
        except BrokerAwayError as error:
            assert f"does not serve queue {QUEUE}" in str(error)  # noqa: PT017 - another release serves it
        # When it is deleted, as the documents say
        rabbit.delete_lost_queues()
        with open_source(rabbit.url, QUEUE, BATCH) as source:
            with Publisher(rabbit.url, source="/tests", shards=1) as publisher:
                publisher.publish_raw(b"1", 0)
            assert [message.body for message in source.take(1, 60)] == [b"1"]


def test_the_queue_deleted_under_its_consumer(stack: Stack) -> None:
    stack.client.publish(load(20, seed=42))
    process = stack.start("commands")
    stack.settle_commands()
    # When somebody deletes the queue
    with Connection(stack.broker_url) as connection:
        connection.default_channel.queue_delete(QUEUE)
    # Then the process makes it anew, and consumes what comes; a poison message is no reason to reject anything
    stack.wait_until(lambda: "starts over" in process.output(), "it to notice")
    stack.client.publish_malformed(b"\xff")
    stack.client.publish(load(40, seed=42)[-20:])
    stack.settle_commands()
    assert stack.number("SELECT count(*) FROM quarantine") == 1


def test_without_a_queue_nothing_vanishes(stack: Stack) -> None:
    with Publisher(stack.broker_url, source="/tests") as publisher:
        with Connection(stack.broker_url) as connection:
            connection.default_channel.queue_delete(QUEUE)
        with pytest.raises(PublishError, match="there is no queue"):
            publisher.upsert_course(course_id="c", command_id="1")
        stack.start("commands")
        stack.some_owner()
        stack.wait_until(lambda: _is_taken(publisher), "the consumer to make the queue")
        stack.wait_until(lambda: stack.handled() == 1, "the command to be handled")


def _is_taken(publisher: Publisher) -> bool:
    try:
        publisher.upsert_course(course_id="c", command_id="1")
    except PublishError:
        return False
    return True


def test_a_queue_with_other_arguments_ends_the_process(stack: Stack) -> None:
    with Connection(stack.broker_url) as connection:
        connection.default_channel.queue_declare(QUEUE, durable=True, auto_delete=False)
    refused = stack.cli("consume", check=False)
    assert refused.returncode == 1
    assert (
        f"invigilator: queue {QUEUE} exists with other arguments: it must be durable with" in refused.stderr
    )
    assert "Traceback" not in refused.stderr


def test_a_channel_closed_for_its_consumers_silence(database_url: str, calm_database_url: str) -> None:
    # Given a broker that waits a second for acknowledgements, and a batch that takes longer
    with (
        running_rabbitmq(CONSUMER_TIMEOUT) as url,
        proxying(url) as proxy,
        Stack(database_url, url) as stack,
    ):
        stack.client.publish(load(50, seed=43))
        process = stack.start(
            "commands",
            crash=Crash("before_acknowledge", "stop", nth=2),
            BATCH_SIZE=BATCH,
            BROKER_URL=proxy.url(url),
        )
        stack.wait_until_struck(process)
        stack.wait_until(lambda: REFUSAL in proxy.answers, "the broker to lose its patience")
        # When it goes on, then that is not taken for a queue with other arguments
        process.resume()
        stack.settle_commands()
        assert REFUSAL.decode() in process.output()
        assert "starts over" in process.output()
        assert_record_of_a_calm_day(stack, calm_database_url)


def test_memory_full(database_url: str) -> None:
    # Given commands in the queue of a broker that then has no memory left for more
    with restartable_rabbitmq() as rabbit, Stack(database_url, rabbit.url) as stack:
        bodies = load(50, seed=45)
        stack.client.publish(bodies)
        rabbit.end(signal.SIGTERM)
        rabbit.configure("vm_memory_high_watermark.absolute = 1MB")
        rabbit.start()
        # Then publishers are told
        with (
            Publisher(rabbit.url, source="/full", timeout_s=0.2) as publisher,
            pytest.raises(PublishError, match="did not take"),
        ):
            publisher.upsert_course(course_id="one-more")
        # And what waits is consumed all the same
        stack.start("commands")
        stack.wait_until_handled(len(bodies))
