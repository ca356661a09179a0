"""How Flower is set up for us, where `celery -A worker.app flower` runs: what it shows, and that it only shows.

Our settings become options of Flower's, which the command line and Flower's own variables may still change. Two of
Flower's classes are replaced by heirs (seen with Flower 2.2), because it has no hook for them: its list of queues
has those only that some worker consumes from, its pause between two attempts to reach the broker doubles for ever,
and it waits at its end for threads that wait for the broker.
"""

import asyncio
import logging
import os
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import flower.app
import flower.command
from celery import Celery
from celery.events import EventReceiver
from flower.api import BaseApiHandler
from flower.api.tasks import GetQueueLengths
from flower.events import Events
from flower.options import options
from flower.views.broker import BrokerView
from tornado.web import HTTPError

from events.connecting import reason_of
from events.sharding import queue_name
from worker.commands.sources.depth import NOT_FOUND
from worker.commands.sources.redis import PRIORITY_SUFFIXES
from worker.kinds import QUEUES
from worker.settings import Settings

logger = logging.getLogger(__name__)

RECONNECT_S = 2.0
FORGET_WORKERS_S = 600
"""Every start of a worker is a new name; the old ones are not listed for longer than this."""
COLUMNS = "args,state,result,received,started,runtime,worker,uuid"
READ_ONLY = (
    "Flower is read only here. The relay makes effects run; for one that is failed: use effects retry "
    "(`invigilator effects retry ID`)"
)
Lengths = list[dict[str, Any]]


def install(settings: Settings) -> None:
    """Set Flower up in this process, before its command reads its options.

    Parameters:
        settings: `flower_port`, `flower_broker_api` and `flower_unauthenticated_api` are passed on, and the number
            of shards says which queues of commands there are.
    """
    options.read_only = True
    options.tasks_columns = COLUMNS
    options.purge_offline_workers = FORGET_WORKERS_S
    if not os.environ.get("FLOWER_PORT", "").isdigit():
        os.environ.pop("FLOWER_PORT", None)  # Kubernetes sets such a one beside a service called flower
    os.environ.update(variables(settings))
    Dashboard.queues = queues(settings.command_shards)
    flower.app.Events = PatientEvents
    flower.command.Flower = Dashboard


def variables(settings: Settings) -> dict[str, str]:
    """The environment variables in which Flower looks for what our settings say."""
    said: dict[str, str] = {}
    if settings.flower_port is not None:
        said["FLOWER_PORT"] = str(settings.flower_port)
    if settings.flower_broker_api is not None:
        said["FLOWER_BROKER_API"] = settings.flower_broker_api.get_secret_value()
    if settings.flower_unauthenticated_api:
        said["FLOWER_UNAUTHENTICATED_API"] = "true"
    return said


def queues(shards: int) -> list[str]:
    """Every queue of ours: the commands' of each shard, and the effects'."""
    return [*(queue_name(shard) for shard in range(shards)), *sorted(set(QUEUES.values()))]


class PatientEvents(Events):  # type: ignore[misc]
    """Listens to the workers, and comes back soon after the broker does."""

    def run(self) -> None:
        """See `threading.Thread`."""
        while True:
            try:
                with self.capp.connection_for_read() as connection:
                    connection.connect()  # once; a channel would try again by itself, with growing pauses
                    receiver = EventReceiver(connection, handlers={"*": self.on_event}, app=self.capp)
                    receiver.capture(limit=None, timeout=None, wakeup=True)
            except Exception as error:  # noqa: BLE001 - whatever it is, the dashboard goes on
                logger.warning("the broker is away: %s; trying again in %g s", reason_of(error), RECONNECT_S)
            time.sleep(RECONNECT_S)


class Dashboard(flower.app.Flower):  # type: ignore[misc]
    """Flower, with all of our queues, and an end that comes at once."""

    queues: Sequence[str] = ()

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        prefix = f"/{options.url_prefix.strip('/')}" if options.url_prefix else ""
        ours: list[tuple[str, type]] = [("/broker", OurBrokerView), ("/api/queues/length", OurQueueLengths)]
        if options.read_only:
            ours.append(("/api/task/(?:apply|async-apply|send-task)/.+", ReadOnly))
        self.add_handlers(".*", [(prefix + path, handler) for path, handler in ours])

    def start(self) -> None:
        """See Flower: runs until a signal ends it.

        It would then wait for threads that wait for a broker which may be away: with nothing of its own to lose, it
        does not.
        """
        with suppress(KeyboardInterrupt, SystemExit):
            super().start()
        self.stop()
        logging.shutdown()
        os._exit(0)


@dataclass(frozen=True, slots=True)
class Depths:
    """Asks the broker itself how long queues are, on whichever broker, as Flower's own classes are asked."""

    celery: Celery

    async def queues(self, names: Sequence[str]) -> Lengths:
        """What Flower shows of each queue; one that does not exist yet is empty."""
        return await asyncio.get_running_loop().run_in_executor(None, self.look, names)

    def look(self, names: Sequence[str]) -> Lengths:
        """The same, for a thread that may wait."""
        with self.celery.connection_for_read() as connection:
            connection.connect()  # once
            return [self._look(connection, name) for name in names]

    def _look(self, connection: Any, name: str) -> dict[str, Any]:
        if connection.transport.driver_type == "redis":
            client = connection.default_channel.client
            messages = sum(client.llen(name + suffix) for suffix in PRIORITY_SUFFIXES)
            return {"name": name, "messages": messages, "messages_ready": messages}
        with connection.channel() as channel:
            try:
                found = channel.queue_declare(name, passive=True)
            except connection.channel_errors as error:
                if getattr(error, "reply_code", None) != NOT_FOUND:
                    raise
                return {"name": name, "messages": 0, "messages_ready": 0, "consumers": 0}
        messages, consumers = found.message_count, found.consumer_count
        return {"name": name, "messages": messages, "messages_ready": messages, "consumers": consumers}


class _AllQueues:
    """What Flower's handlers ask: for every queue of ours, whoever works on it."""

    application: Dashboard

    def get_active_queue_names(self) -> list[str]:
        return list(self.application.queues)

    def get_broker(self) -> Any:
        # The management of RabbitMQ, where there is one to ask.
        if options.broker_api and self.application.transport == "amqp":
            return super().get_broker()  # type: ignore[misc]
        return Depths(self.application.capp)


class OurBrokerView(_AllQueues, BrokerView):  # type: ignore[misc]
    """The page of queues."""


class OurQueueLengths(_AllQueues, GetQueueLengths):  # type: ignore[misc]
    """The same for programs."""


class ReadOnly(BaseApiHandler):  # type: ignore[misc]
    """In place of what would send a task."""

    def post(self) -> None:
        """Refuse, and say what to use."""
        raise HTTPError(403, READ_ONLY)
