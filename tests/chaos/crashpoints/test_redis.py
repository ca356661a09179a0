"""What may happen to a Redis server under live processes, and what each costs."""

import shutil
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from threading import Event, Thread

import psutil
import pytest
from redis import Redis
from redis.exceptions import ResponseError

from events.envelope import parse
from events.errors import PublishError
from events.publisher import Publisher
from events.sharding import queue_name
from tests import engines
from tests.acceptance.conftest import Start
from tests.acceptance.harness import Stack
from tests.acceptance.load import load
from tests.acceptance.oracle import assert_nothing_lost_or_doubled, assert_record_of_a_calm_day
from worker.commands.sources.redis import Place, open_envelope

QUEUE = queue_name(0)
BATCH = 5
RENEWALS = 3


@dataclass
class Publishing:
    """Commands on their way: how many may be published by now, and how many attempts were refused."""

    limit: int
    refused: int = 0
    stop: Event = field(default_factory=Event)

    def run(self, broker_url: str, bodies: Sequence[bytes]) -> None:
        """Publish with our publisher, each command again until it is taken."""
        with Publisher(broker_url, source="/tests", timeout_s=2) as publisher:
            for number, body in enumerate(bodies):
                while number >= self.limit and not self.stop.wait(0.01):
                    pass
                while not (self.stop.is_set() or _is_taken(publisher, body)):
                    self.refused += 1


@contextmanager
def publishing(broker_url: str, bodies: Sequence[bytes], limit: int) -> Iterator[Publishing]:
    """Publish in the background; all in the end."""
    publishing = Publishing(limit)
    thread = Thread(target=publishing.run, args=(broker_url, bodies), name="publishing")
    thread.start()
    try:
        yield publishing
        publishing.limit = len(bodies)
    except BaseException:
        publishing.stop.set()
        raise
    finally:
        thread.join()


def _is_taken(publisher: Publisher, body: bytes) -> bool:
    try:
        publisher.publish_raw(body, 0)
    except PublishError:
        return False
    return True


def expect(stack: Stack, bodies: Sequence[bytes]) -> None:
    """Let the stack know of commands that it has not published itself."""
    for body in bodies:
        command = parse(body)
        stack.client.bodies[command.source, command.id] = body


def test_killed_and_wiped_while_commands_are_published(
    tmp_path: Path, database_url: str, start_valkey: Start, calm_database_url: str
) -> None:
    server = start_valkey(tmp_path)
    with Stack(database_url, server.url) as stack:
        bodies = load(400, seed=51)
        process = stack.start("commands", BATCH_SIZE=BATCH)
        with publishing(server.url, bodies, limit=150) as publisher:
            # When the server is killed, publishers are told, and publish the same again
            stack.wait_until_handled(50)
            engines.end(server, signal.SIGKILL)
            publisher.limit = 250
            stack.wait_until(lambda: publisher.refused > 0, "the publisher to be refused")
            server = start_valkey(tmp_path)
            stack.wait_until_handled(200)
            # When it is wiped while something waits, nobody is told
            process.pause()
            publisher.limit = 350
            with Redis.from_url(server.url) as client:
                stack.wait_until(lambda: client.llen(QUEUE) > BATCH, "something to wait")
                wiped = _wipe(client)
            process.resume()
        # Then all that is missing was wiped before it was committed; the rest is as if it had never been published
        with Redis.from_url(server.url) as client:
            stack.wait_until(lambda: client.llen(QUEUE) == 0, "the queue to be empty")
        committed = {
            (row.source, row.command_id) for row in stack.rows("SELECT source, command_id FROM inbox")
        }
        lost = [body for body in bodies if (parse(body).source, parse(body).id) not in committed]
        assert {parse(body).id for body in lost} <= wiped
        expect(stack, [body for body in bodies if body not in lost])
        stack.settle_commands()
        assert_record_of_a_calm_day(stack, calm_database_url)


def _wipe(client: Redis) -> set[str]:
    """Wipe the server; returns the ids of the commands that waited."""
    with client.pipeline(transaction=True) as pipeline:
        pipeline.lrange(QUEUE, 0, -1)
        pipeline.flushall()
        waiting, _ = pipeline.execute()
    return {parse(open_envelope(Place(QUEUE, raw)).body).id for raw in waiting}


def test_memory_full(tmp_path: Path, database_url: str, start_valkey: Start, calm_database_url: str) -> None:
    server = start_valkey(tmp_path)
    with Stack(database_url, server.url) as stack, Redis.from_url(server.url) as client:
        # Given waiting commands on a server that takes no more
        stack.client.publish(load(100, seed=52))
        client.config_set("maxmemory", 1)
        with (
            Publisher(server.url, source="/tests") as publisher,
            pytest.raises(PublishError, match="OutOfMemory"),
        ):
            publisher.upsert_course(course_id="refused")
        # When they are consumed, then they are acknowledged all the same
        commands = stack.start("commands", BATCH_SIZE=BATCH)
        stack.settle_commands()
        # and an idle consumer keeps its shard
        for _ in range(RENEWALS):
            lease = stack.rows("SELECT lease_until FROM shards")
            stack.wait_until(lambda: stack.rows("SELECT lease_until FROM shards") != lease, "a renewal")  # noqa: B023
        assert stack.number("SELECT epoch FROM shards") == 1
        assert "starts over" not in commands.output()
        # and the relay waits
        relay = stack.start("relay")
        stack.wait_until(lambda: relay.output().count("the broker is away") > 1, "it to be refused")
        # When there is room again, then everything goes on
        client.config_set("maxmemory", 0)
        stack.client.publish(load(120, seed=52)[-20:])
        for name in ("effects", "mail"):
            stack.start(name)
        stack.settle()
        assert_nothing_lost_or_doubled(stack, calm_database_url)


def test_a_failover_to_the_past(
    tmp_path: Path, database_url: str, start_valkey: Start, calm_database_url: str
) -> None:
    folder, copy = tmp_path / "server", tmp_path / "copy"
    server = start_valkey(folder)
    bodies = load(60, seed=53)
    old, new, lost = bodies[:60], bodies[60:100], bodies[100:]
    with Stack(database_url, server.url) as stack:
        # Given a copy of the folder, made before the commands were handled and before the newest were sent
        stack.client.publish(old)
        with Redis.from_url(server.url) as client:
            client.waitaof(1, 0, 0)
        shutil.copytree(folder, copy)
        process = stack.start("commands", BATCH_SIZE=BATCH)
        stack.client.publish(new)
        stack.settle_commands()
        process.terminate()
        stack.client.publish(lost)
        # When that copy takes over
        engines.end(server, signal.SIGKILL)
        shutil.rmtree(folder)
        shutil.copytree(copy, folder)
        server = start_valkey(folder)
        assert server.url == stack.broker_url
        assert stack.client.waiting() == len(old)
        stack.start("commands", BATCH_SIZE=BATCH)
        stack.wait_until(lambda: stack.client.waiting() == 0, "the past to be read")
        # Then what comes back is recognised, and only what was not committed is lost
        assert stack.handled() == len(old + new)
        # and may be published again
        stack.client.publish(lost)
        stack.settle_commands()
        assert_record_of_a_calm_day(stack, calm_database_url)


def test_disk_full(
    tmp_path: Path,
    database_url: str,
    start_valkey: Start,
    calm_database_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as patch:
        # Python ignores SIGXFSZ; a server that inherits this gets an error, as from a full disk, and no signal.
        patch.setattr("subprocess.Popen", partial(subprocess.Popen, restore_signals=False))
        server = start_valkey(tmp_path)
    with Stack(database_url, server.url) as stack, Redis.from_url(server.url) as client:
        stack.client.publish(load(100, seed=54))
        commands = stack.start("commands", BATCH_SIZE=BATCH)
        stack.wait_until_handled(20)
        # When no file of the server may grow
        process = psutil.Process(server.process.pid)
        process.rlimit(psutil.RLIMIT_FSIZE, (1, psutil.RLIM_INFINITY))
        stack.wait_until(lambda: _refuses(client), "the server to refuse what it cannot keep")
        with Publisher(server.url, source="/tests") as publisher, pytest.raises(PublishError):
            publisher.upsert_course(course_id="refused")
        stack.wait_until(lambda: "MISCONF" in commands.output(), "the consumer to be refused")
        # Then it goes on as soon as there is room
        process.rlimit(psutil.RLIMIT_FSIZE, (psutil.RLIM_INFINITY, psutil.RLIM_INFINITY))
        stack.wait_until(lambda: not _refuses(client), "the server to recover")
        stack.settle_commands()
        assert_record_of_a_calm_day(stack, calm_database_url)


def _refuses(client: Redis) -> bool:
    try:
        client.set("a key", "of ours")
    except ResponseError:
        return True
    return False
