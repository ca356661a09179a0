"""Says which libraries misbehave without their patch: `python -m tests.misbehaviour URL PATCHES`.

A process of its own, because a patch lasts as long as its process. It applies all patches but those that are named,
separated by commas, and prints a JSON object: the name of each patch, and whether its library misbehaves.
"""

import json
import socket
import struct
import sys
import time
import zlib
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import flower.app
import flower.command
from amqp.basic_message import Message as AmqpMessage
from amqp.transport import TCPTransport
from celery import Celery
from flower.options import options
from kombu import Connection, Consumer, Queue
from kombu.message import Message
from tornado.httputil import HTTPHeaders, HTTPServerRequest

from worker import patches
from worker.celery import flower as ours
from worker.patches import Process
from worker.settings import Settings

NAME = "misbehaviour"


def fails_at_properties(_url: str) -> bool:
    """Whether py-amqp raises at a header that is a time stamp in milliseconds."""
    table = b"\x01t" + b"T" + struct.pack(">Q", 1_700_000_000_000)
    frame = struct.pack(">HxxQ", 60, 0) + struct.pack(">HI", 0x2000, len(table)) + table
    try:
        AmqpMessage().inbound_header(frame)
    except ValueError:
        return True
    return False


def asks_for_each_part(_url: str) -> bool:
    """Whether py-amqp asks the system more than once for a frame that is there."""
    asked: list[int] = []
    ours, theirs = socket.socketpair()

    def recv(wanted: int) -> bytes:
        asked.append(wanted)
        return ours.recv(wanted)

    with ours, theirs:
        theirs.sendall(struct.pack(">BHI", 8, 0, 4) + b"beat" + b"\xce")
        transport = TCPTransport("localhost:5672")
        transport.sock = SimpleNamespace(
            recv=recv, sendall=ours.sendall, close=ours.close, shutdown=ours.shutdown
        )
        transport._setup_transport()  # noqa: SLF001 - what the patch replaces
        assert transport.read_frame() == (8, 0, b"beat")
        transport.sock = None
    return len(asked) > 1


def fails_at_envelope(url: str) -> bool:
    """Whether kombu raises at an entry of a list that is no envelope."""
    taken: list[Any] = []
    with Connection(url) as connection, connection.channel() as channel:
        channel.client.delete(NAME)
        consumer = Consumer(channel, [Queue(NAME)], on_message=taken.append, no_ack=True)
        consumer.consume()
        channel.client.lpush(NAME, "no envelope")
        try:
            connection.drain_events(timeout=60)
        except ValueError:
            return True
    [message] = taken
    assert message.headers == {}
    return False


def decompresses(_url: str) -> bool:
    """Whether kombu decompresses a body when a message is made."""
    message = Message(body=zlib.compress(b"bomb"), headers={"compression": "application/x-gzip"})
    return bool(message.body == b"bomb")


class _StopError(BaseException):
    """Ends a thread's loop."""


def waits_ever_longer(_url: str) -> bool:
    """Whether Flower's pauses between two attempts to reach the broker grow."""
    pauses: list[float] = []

    def sleep(pause_s: Any) -> None:
        pauses.append(pause_s)
        if len(pauses) == 8:
            raise _StopError

    with Celery(NAME, broker="redis://127.0.0.1:1", set_as_current=False) as app:
        app.conf.broker_connection_timeout = 1
        app.conf.broker_transport_options = {"max_retries": 0}
        events = flower.app.Events(app, None, max_tasks_in_memory=1)
        real, time.sleep = time.sleep, sleep
        try:
            events.run()
        except _StopError:
            pass
        finally:
            time.sleep = real
    return pauses[-1] > pauses[0]


def lists_some_queues(_url: str) -> bool:
    """Whether Flower lists only the queues that a worker consumes from."""
    with Celery(NAME, broker="memory://", set_as_current=False) as app:
        app.conf.task_queues = [Queue("one"), Queue("other")]
        ours.Dashboard.queues = ["one", "other"]
        dashboard = flower.command.Flower(capp=app, options=options)
        dashboard.inspector.workers["worker"] = {"active_queues": [{"name": "one"}]}
        connection: Any = SimpleNamespace(context=None, set_close_callback=lambda _: None)
        request = HTTPServerRequest(
            "GET", "/broker", headers=HTTPHeaders({"Host": "localhost"}), connection=connection
        )
        handler: Any = dashboard.find_handler(request).handler_class
        shown = handler.get_active_queue_names(SimpleNamespace(application=dashboard, capp=app))
    assert "one" in shown
    return "other" not in shown


MISBEHAVES: dict[str, Callable[[str], bool]] = {
    "amqp-properties": fails_at_properties,
    "amqp-read-ahead": asks_for_each_part,
    "kombu-envelope": fails_at_envelope,
    "kombu-compression": decompresses,
    "flower-events": waits_ever_longer,
    "flower-dashboard": lists_some_queues,
}


def main(url: str, without: str) -> None:
    """Apply the patches and print what misbehaves."""
    settings = Settings(without_patches=frozenset(without.split(",")) - {""})
    for process in Process:
        patches.apply(process, settings)
    print(json.dumps({name: misbehaves(url) for name, misbehaves in MISBEHAVES.items()}))  # noqa: T201


if __name__ == "__main__":
    main(*sys.argv[1:])
