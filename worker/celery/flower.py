"""Sets Flower up for `celery -A worker.app flower`. It shows our queues and tasks, and changes nothing.

Our settings become options of Flower's, which the command line and Flower's own variables may still change. Flower
has no hook for two classes of ours: `worker.patches` puts them in the place of its own, and says why.
"""

import asyncio
import logging
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import flower.app
from celery.events import EventReceiver
from flower.api import BaseApiHandler
from flower.api.tasks import GetQueueLengths
from flower.events import Events
from flower.options import options
from flower.views.broker import BrokerView
from tornado.web import HTTPError

from events.connecting import broker_errors, reason_of
from events.sharding import queue_name
from worker.commands.sources.base import Depth
from worker.commands.sources.brokers import depths
from worker.kinds import QUEUES
from worker.logs import get_logger
from worker.settings import Settings

logger = get_logger(__name__)

RECONNECT_S = 2.0
FORGET_WORKERS_S = 600
"""Seconds for which Flower lists a worker that has gone. Each start of a worker has a new name."""
COLUMNS = "args,state,result,received,started,runtime,worker,uuid"
READ_ONLY = (
    "Flower is read only here. The relay makes effects run; for one that is failed: use effects retry "
    "(`invigilator effects retry ID`)"
)


def configure(settings: Settings) -> None:
    """Set Flower's options in this process, before its command reads them.

    Parameters:
        settings: `flower_port`, `flower_broker_api` and `flower_unauthenticated_api` are passed on. The broker's
            URL and the number of shards say which queues the dashboard counts, and where.
    """
    options.read_only = True
    options.tasks_columns = COLUMNS
    options.purge_offline_workers = FORGET_WORKERS_S
    if not os.environ.get("FLOWER_PORT", "").isdigit():
        os.environ.pop("FLOWER_PORT", None)  # Kubernetes sets it to a URL beside a service called flower
    os.environ.update(variables(settings))
    Dashboard.queues = queues(settings.command_shards)
    assert settings.broker_url is not None
    Dashboard.broker_url = settings.broker_url.get_secret_value()


def variables(settings: Settings) -> dict[str, str]:
    """Return the environment variables of Flower that say what our settings say."""
    said: dict[str, str] = {}
    if settings.flower_port is not None:
        said["FLOWER_PORT"] = str(settings.flower_port)
    if settings.flower_broker_api is not None:
        said["FLOWER_BROKER_API"] = settings.flower_broker_api.get_secret_value()
    if settings.flower_unauthenticated_api:
        said["FLOWER_UNAUTHENTICATED_API"] = "true"
    return said


def queues(shards: int) -> list[str]:
    """Return the names of all our queues: one for the commands of each shard, and those of the effects."""
    return [*(queue_name(shard) for shard in range(shards)), *sorted(set(QUEUES.values()))]


class Receiver(EventReceiver):  # type: ignore[misc]
    """Receives on the connection that it is given. Celery's opens one more, and tries with growing pauses."""

    @contextmanager
    def establish_connection(self) -> Iterator[Any]:
        """Give the connection that is there. See kombu."""
        yield self.connection


class PatientEvents(Events):  # type: ignore[misc]
    """Receives the workers' events. When that ends, it begins again after a short pause.

    Workers stop sending events of tasks when nobody asks for them (`worker.celery.task_events`). Those that are
    there are asked before they are seen. Flower then asks every five seconds.
    """

    def run(self) -> None:
        """Receive events for ever. See `threading.Thread`."""
        while True:
            try:
                self._receive()
            except Exception as error:  # noqa: BLE001 - the dashboard goes on after any error
                reason = _explained(error, self.capp)
                logger.warning("Flower tries again", reason=reason, again_in_s=RECONNECT_S)
            time.sleep(RECONNECT_S)

    def _receive(self) -> None:
        with self.capp.connection_for_read() as connection:
            connection.connect()  # tries once; a channel would try again by itself, with growing pauses
            if self.enable_events:
                self.capp.control.enable_events(connection=connection)
            receiver = Receiver(connection, handlers={"*": self.on_event}, app=self.capp)
            # To wake the workers up, Celery would wait for the broker, for ever and with growing pauses. They send
            # a heartbeat every two seconds anyway.
            receiver.capture(limit=None, timeout=None, wakeup=False)


def _explained(error: Exception, celery: Any) -> str:
    if isinstance(error, (OSError, *broker_errors(celery.connection_for_read()))):
        return f"the broker is away: {reason_of(error)}"
    return f"events cannot be received: {type(error).__name__}"


class Dashboard(flower.app.Flower):  # type: ignore[misc]
    """Flower with all our queues. It sends no task, and ends at once."""

    broker_url: str
    queues: Sequence[str] = ()

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        prefix = f"/{options.url_prefix.strip('/')}" if options.url_prefix else ""
        ours: list[tuple[str, type]] = [("/broker", OurBrokerView), ("/api/queues/length", OurQueueLengths)]
        if options.read_only:
            ours.append(("/api/task/(?:apply|async-apply|send-task)/.+", ReadOnly))
        self.add_handlers(".*", [(prefix + path, handler) for path, handler in ours])

    def start(self) -> None:
        """Run until a signal ends it. See Flower.

        Flower would then wait for its threads, which may wait for a broker that is away. They have nothing to lose.
        """
        with suppress(KeyboardInterrupt, SystemExit):
            super().start()
        self.stop()
        logging.shutdown()
        os._exit(0)


@dataclass(frozen=True, slots=True)
class QueueDepths:
    """Counts messages as `invigilator status` does. It stands in for Flower's own classes, one for each broker."""

    broker_url: str

    async def queues(self, names: Sequence[str]) -> list[dict[str, Any]]:
        """Return what Flower shows of each queue. See Flower."""
        found = await asyncio.get_running_loop().run_in_executor(None, depths, self.broker_url, names)
        return [_shown(depth) for depth in found]


def _shown(depth: Depth) -> dict[str, Any]:
    shown = {"name": depth.queue, "messages": depth.messages, "messages_ready": depth.messages}
    return shown if depth.consumers is None else {**shown, "consumers": depth.consumers}


class _AllQueues:
    """Makes Flower's handlers show all our queues, also those that no worker consumes from."""

    application: Dashboard

    def get_active_queue_names(self) -> list[str]:
        return list(self.application.queues)

    def get_broker(self) -> Any:
        # Flower's own class asks RabbitMQ's management API, which knows more, where there is one.
        if options.broker_api and self.application.transport == "amqp":
            return super().get_broker()  # type: ignore[misc]
        return QueueDepths(self.application.broker_url)


class OurBrokerView(_AllQueues, BrokerView):  # type: ignore[misc]
    """The page of queues."""


class OurQueueLengths(_AllQueues, GetQueueLengths):  # type: ignore[misc]
    """The queues for programs."""


class ReadOnly(BaseApiHandler):  # type: ignore[misc]
    """Takes the place of the handlers that send tasks."""

    def post(self) -> None:
        """Refuse, and say what to use instead."""
        raise HTTPError(403, READ_ONLY)
