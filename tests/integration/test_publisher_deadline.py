"""The deadline of a publish: it counts from the call to its end, whatever the broker does."""

import asyncio
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, contextmanager
from urllib.parse import urlsplit

import pytest
from kombu import Connection

from events.errors import PublishError
from events.publisher import AsyncPublisher, Publisher
from events.sharding import Announcement, queue_name
from tests.integration.commands.test_consumer import until
from tests.peers import black_hole, drip, pass_on, peer, say_nothing
from worker.commands.sources import open_source
from worker.commands.sources.brokers import queued

TIMEOUT_S = 2.0
GIVE_UP_S = 2.5 * TIMEOUT_S
"""Four threads that wait for each other need four times the time-out, at least."""
LONG_S = 60.0


@contextmanager
def silent() -> Iterator[str]:
    """The address of a server that accepts, and never answers."""
    with peer(say_nothing) as server:
        yield server.address


@contextmanager
def dripping() -> Iterator[str]:
    """The address of a server that answers with a byte now and then."""
    with peer(drip) as server:
        yield server.address


@pytest.mark.parametrize(
    ("server", "scheme"),
    [
        (silent, "redis"),
        (silent, "rediss"),
        (silent, "amqp"),
        (silent, "amqps"),
        (dripping, "redis"),
        (dripping, "amqp"),
        (black_hole, "redis"),
        (black_hole, "amqp"),
    ],
)
def test_threads_do_not_wait_for_each_others_deadlines(
    server: Callable[[], AbstractContextManager[str]], scheme: str
) -> None:
    # Given a broker that does not answer
    with server() as address, ThreadPoolExecutor(4) as pool:
        publisher = Publisher(f"{scheme}://{address}", source="/lms/acme", shards=2, timeout_s=TIMEOUT_S)
        # When four threads publish commands for every shard at once
        calls: list[Future[str]] = [
            pool.submit(publisher.upsert_course, course_id="c1", command_id=str(number))
            for number in range(4)
        ]
        # Then each gives up in its own time, and says with what id to publish again
        assert wait(calls, timeout=GIVE_UP_S).not_done == set()
        for number, call in enumerate(calls):
            error = call.exception()
            assert isinstance(error, PublishError)
            assert error.command_id == str(number)
            assert "publish again with the same id" in str(error)


def test_the_loop_goes_on_while_tasks_wait() -> None:
    async def publish(address: str) -> list[str | BaseException]:
        async with AsyncPublisher(f"redis://{address}", source="/lms/acme", timeout_s=TIMEOUT_S) as publisher:
            calls = [publisher.create_attempt(exam_id=7, user_id=number) for number in range(20)]
            waiting = asyncio.ensure_future(asyncio.gather(*calls, return_exceptions=True))
            for _ in range(10):  # which the loop does before any of them gives up
                await asyncio.sleep(0.01)
                assert not waiting.done()
            return await asyncio.wait_for(waiting, GIVE_UP_S)

    with silent() as address:
        assert all(isinstance(outcome, PublishError) for outcome in asyncio.run(publish(address)))


@pytest.fixture
def rabbitmq_url(rabbitmq_url: str) -> Iterator[str]:
    """The session's, with nothing left behind for other tests."""
    yield rabbitmq_url
    with Connection(rabbitmq_url) as connection:
        connection.default_channel.queue_delete(queue_name(0))


@pytest.fixture(params=["valkey_url", "rabbitmq_url"])
def broker_url(request: pytest.FixtureRequest) -> str:
    url: str = request.getfixturevalue(request.param)
    return url


def publish_again(publisher: Publisher) -> None:
    """Publish with the same id until the broker takes it, as an LMS does. A busy machine may take several calls."""

    def is_taken() -> bool:
        try:
            return publisher.create_attempt(exam_id=7, user_id=42, command_id="5f0c") == "5f0c"
        except PublishError:
            return False

    until(is_taken)


def declare(broker_url: str) -> None:
    """Make the queue of the only shard, as `consume` does."""
    with open_source(broker_url, queue_name(0), 1) as source:
        source.announce(Announcement(1), source.told())


@pytest.mark.parametrize("behave", [say_nothing, drip])
def test_a_broker_that_answers_again_is_published_to(broker_url: str, behave: Callable[..., None]) -> None:
    # Given a publisher that has given up on a connection, which stays as it is
    declare(broker_url)
    parts = urlsplit(broker_url)
    assert parts.hostname is not None
    assert parts.port is not None
    with peer(behave) as between:
        login, at, _ = parts.netloc.rpartition("@")
        url = parts._replace(netloc=f"{login}{at}{between.address}").geturl()
        publisher = Publisher(url, source="/lms/acme", shards=1, timeout_s=TIMEOUT_S)
        with pytest.raises(PublishError):
            publisher.create_attempt(exam_id=7, user_id=42, command_id="5f0c")
        # When the broker answers again, then it is published to over another connection
        between.behave = pass_on(parts.hostname, parts.port)
        publish_again(publisher)
        publisher.close()


def test_of_several_brokers_the_one_that_answers_is_found(rabbitmq_url: str) -> None:
    # Given two brokers, of which the first says nothing
    declare(rabbitmq_url)
    with peer(say_nothing) as first:
        urls = f"amqp://guest:guest@{first.address}//;{rabbitmq_url}"
        publisher = Publisher(urls, source="/lms/acme", shards=1, timeout_s=TIMEOUT_S)
        with pytest.raises(PublishError):
            publisher.create_attempt(exam_id=7, user_id=42, command_id="5f0c")
        # When the command is published again, then the other one takes it
        publish_again(publisher)
        publisher.close()


def test_a_broker_that_refuses_is_not_waited_for() -> None:
    # Given nobody on a port, and all the time in the world
    with silent() as address:
        pass
    publisher = Publisher(f"redis://{address}", source="/lms/acme", timeout_s=10 * LONG_S)
    with ThreadPoolExecutor(1) as pool:
        # When a command is published, then after a few tries the reason is known
        error = pool.submit(publisher.upsert_course, course_id="c1").exception(LONG_S)
    assert "(ConnectionError)" in str(error)


FORKED = """
import os, sys
from events.publisher import Publisher

publisher = Publisher(sys.argv[1], source="/lms/acme", shards=1)
publisher.publish_raw(b"before", 0)
child = os.fork()
publisher.publish_raw(b"child" if child == 0 else b"parent", 0)
if child:
    assert os.waitpid(child, 0)[1] == 0
publisher.publish_raw(b"after", 0)
publisher.close()
"""


def test_a_forked_process_has_a_connection_of_its_own(broker_url: str) -> None:
    declare(broker_url)
    before = queued(broker_url, 1)
    # When a process that has published forks, and both publish
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-W", "ignore::DeprecationWarning", "-c", FORKED, broker_url],
        capture_output=True,
        text=True,
        timeout=LONG_S,
    )
    # Then nothing goes wrong, and everything arrives: what came before, and two messages from each
    assert (ran.returncode, ran.stderr) == (0, "")
    until(lambda: queued(broker_url, 1) == before + 5)
