"""The Celery application (`celery -A worker.app worker …`) and its tasks: shells around `Runner.run`."""

import logging
import os
import runpy
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn
from uuid import UUID

import click
from celery import Celery
from celery.app.amqp import AMQP
from celery.concurrency import get_implementation, solo, thread
from celery.exceptions import Retry
from celery.signals import celeryd_after_setup, celeryd_init, worker_init
from celery.utils.nodenames import node_format
from kombu import Producer
from kombu.exceptions import BatchPublishError, OperationalError
from kombu.utils.uuid import uuid

from db.offers import Offer
from events.connecting import reason_of
from events.errors import InvigilatorError
from worker import extras, patches
from worker.celery import results, strict_consumer
from worker.celery.pooling import PoolingConnection
from worker.commands.sources import brokers
from worker.commands.sources.depth import check_server
from worker.effects.action import TryAgainError
from worker.effects.runner import Runner
from worker.engines import resolve
from worker.errors import ConfigurationError, Transient
from worker.kinds import QUEUES, EffectKind, Payload, label
from worker.patches import Process
from worker.settings import Settings, load
from worker.wiring import broker_url, runner, unreached

logger = logging.getLogger(__name__)

CELERYCONFIG = Path(__file__).parents[1] / "celeryconfig.py"
POOLS = (thread.TaskPool, solo.TaskPool)  # what a process is prepared with does not outlive a fork

# With one of these, Celery would send tasks to one broker while commands come from another.
_OVERRIDES = ("CELERY_BROKER_URL", "CELERY_BROKER_READ_URL", "CELERY_BROKER_WRITE_URL")


def check_broker(settings: Settings) -> None:
    """Make sure that Celery will use the broker of the settings, and can. One that is away passes.

    Raises:
        ConfigurationError: it will not, or cannot.
    """
    _refuse_overrides()
    check_server(broker_url(settings))


def _refuse_overrides() -> None:
    for name in _OVERRIDES:
        if os.environ.get(name):
            raise ConfigurationError(
                f"{name} (or celery's --broker) gives Celery another broker than INVIGILATOR_BROKER_URL: unset it"
            )


def _settings(*, database: bool = False, broker: bool = False) -> Settings:
    with _refusing():
        _refuse_overrides()
        return resolve(load(), database=database, broker=broker)


@contextmanager
def _refusing() -> Iterator[None]:
    try:
        yield
    except InvigilatorError as error:
        _refuse(str(error))


def _refuse(reason: str) -> NoReturn:
    raise SystemExit(f"invigilator: {reason}") from None  # Celery would print a page of traceback


def _broker_settings() -> dict[str, Any]:
    url, broker = brokers.read(broker_url(_settings(broker=True)))
    return {
        "broker_url": url.for_kombu,
        "broker_use_ssl": url.ssl,
        "broker_transport_options": {
            **broker.celery_options,
            **url.transport_options(brokers.CELERY_TIMEOUT_S),
        },
    }


class Amqp(AMQP):  # type: ignore[misc]
    """See Celery: how it connects."""

    Connection = PoolingConnection


app = Celery("invigilator", amqp=Amqp, task_cls=results.EffectTask)
app.config_from_object(runpy.run_path(str(CELERYCONFIG)))  # by name, Celery would prefer the working folder's
app.add_defaults(_broker_settings)  # a promise: nothing is read before Celery needs it

_runner: Runner | None = None


@celeryd_init.connect  # type: ignore[untyped-decorator]
def check_options(options: Mapping[str, Any], **_: Any) -> None:
    """Stop a worker whose command line cannot work, in one line."""
    queues = sorted(set(QUEUES.values()))
    named, excluded = options.get("queues") or queues, options.get("exclude_queues") or []
    if unknown := [name for name in (*named, *excluded) if name not in queues]:
        _refuse(f"there is no queue of effects called {unknown[0]!r}; there are {', '.join(queues)}")
    if set(named) <= set(excluded):
        _refuse("--exclude-queues leaves no queue to work on")
    pool = get_implementation(app.either("worker_pool", options.get("pool"), options.get("pool_cls")))
    if pool not in POOLS:
        _refuse("effects run in threads: leave --pool out, or use --pool threads or --pool solo")
    if options.get("autoscale"):
        _refuse("a pool of threads grows by itself: use --concurrency instead of --autoscale")


@worker_init.connect  # type: ignore[untyped-decorator]
def name_uniquely(sender: Any, **_: Any) -> None:
    """Give a worker a node name that no other one has: `effects@host` becomes `effects-1f3a9c02@host`.

    RabbitMQ lets one connection have the control queue of a name. The same line of the Procfile may run many times
    on a machine, process ids are the same in many containers, and whoever takes the place of a worker that stands
    still must not wait for its connection to end.
    """
    if sender.logfile:
        # The file is found by the name that was given.
        sender.logfile = node_format(sender.logfile, sender.hostname)
    name, _, host = sender.hostname.rpartition("@")
    sender.hostname = f"{name}-{secrets.token_hex(4)}@{host}"


@worker_init.connect  # type: ignore[untyped-decorator]
def start(**_: Any) -> None:
    """Prepare this process for its tasks. A worker with wrong settings stops here, before it takes any."""
    global _runner  # Celery knows one application per process, and so do its tasks
    with _refusing():
        settings = _settings(database=True, broker=True)
        check_broker(settings)
        _runner = runner(settings)
    patches.apply(Process.WORKER, settings)
    # That a task has come says little beside the line that follows when it has run.
    logging.getLogger("celery.worker.strategy").setLevel(logging.WARNING)


@celeryd_after_setup.connect  # type: ignore[untyped-decorator]
def warn(**_: Any) -> None:
    """Say what is only logged, once there is a log to say it in."""
    settings = _settings(database=True)
    for line in (*unreached(settings), *patches.switched_off(Process.WORKER, settings)):
        logger.warning(line)


def _run(effect_id: str, kind: EffectKind) -> str:
    assert _runner is not None, "the worker has not been started"
    try:
        answer = _runner.run(UUID(effect_id), kind)
    except TryAgainError as error:
        raise Retry(str(error)) from None  # says so; nothing is sent, because the relay offers it again
    if not answer.is_done:
        raise results.NothingToDo(str(answer))
    return str(answer)


@app.task(name="effects.set_credit_status")  # type: ignore[untyped-decorator]
def set_credit_status(effect_id: str) -> str:
    """Tell the credit service a status."""
    return _run(effect_id, EffectKind.SET_CREDIT_STATUS)


@app.task(name="effects.remove_credit_status")  # type: ignore[untyped-decorator]
def remove_credit_status(effect_id: str) -> str:
    """Tell the credit service to forget a status."""
    return _run(effect_id, EffectKind.REMOVE_CREDIT_STATUS)


@app.task(name="effects.cascade_decline")  # type: ignore[untyped-decorator]
def cascade_decline(effect_id: str) -> str:
    """Decline the sibling exams."""
    return _run(effect_id, EffectKind.CASCADE_DECLINE)


@app.task(name="effects.send_status_email")  # type: ignore[untyped-decorator]
def send_status_email(effect_id: str) -> str:
    """Send the mail of a status."""
    return _run(effect_id, EffectKind.SEND_STATUS_EMAIL)


@app.task(name="effects.delete_student_attempt")  # type: ignore[untyped-decorator]
def delete_student_attempt(effect_id: str) -> str:
    """Reset the learner's work."""
    return _run(effect_id, EffectKind.DELETE_STUDENT_ATTEMPT)


@dataclass(frozen=True, slots=True)
class CeleryDispatcher:
    """The relay's way to the workers: one Celery message for each offer."""

    celery: Celery = app

    def dispatch(self, offers: Sequence[Offer]) -> None:
        """Publish one task for each effect, in order, to queues whose length was asked for before.

        Raises:
            Transient: the broker is away.
        """
        with self._channel() as channel:
            producer = Producer(channel, auto_declare=False)
            with producer.batch():  # on Redis: sent together
                for offer in offers:
                    self._publish(offer, producer)

    def _publish(self, offer: Offer, producer: Any) -> None:
        # Celery's `send_task` makes the same message, for several times the work, with fifteen more headers that
        # `worker.celery.strict_consumer` drops unread.
        producer.publish(
            strict_consumer.body_of(str(offer.id)),
            routing_key=QUEUES[offer.kind],
            content_type=strict_consumer.CONTENT_TYPE,
            content_encoding=strict_consumer.CONTENT_ENCODING,
            # The row is what lasts. RabbitMQ need not write this to its disk; if it forgets it, it is sent again.
            delivery_mode="transient",
            headers={
                "lang": "py",
                "task": f"effects.{offer.kind}",
                "id": uuid(),
                # Flower shows this instead of the bare id.
                "argsrepr": f"{label(offer.kind, Payload(**offer.payload), offer.tries + 1)} · {offer.id}",
            },
        )

    def queue_length(self, queue: str) -> int:
        """How many tasks wait in a queue; 0 for one that does not exist yet.

        Raises:
            Transient: the broker is away.
        """
        with self._channel() as channel:
            # Not passive: Celery declares a queue once, and what it sends to one deleted since is lost.
            return int(self.celery.amqp.queues[queue].bind(channel).queue_declare().message_count)

    @contextmanager
    def _channel(self) -> Iterator[Any]:
        pool = self.celery.pool
        connection = pool.acquire()  # blocking would wait for those that were replaced, for ever
        try:
            connection.connect()  # once; a default channel would try again for ever
            yield connection.default_channel
        except Exception as error:
            # A connection that broke does not come back by itself.
            pool.replace(connection)
            # AttributeError: on Redis, kombu 5.7 sometimes goes on with a channel that it has just closed because
            # the server went away, and then trips over its own None (seen).
            away = (
                OperationalError,
                BatchPublishError,
                AttributeError,
                *connection.connection_errors,
                *connection.channel_errors,
            )
            if isinstance(error, away):
                raise Transient(f"the broker is away: {reason_of(error)}") from error
            raise
        connection.release()


def _prepare_flower() -> None:
    """Set Flower up where this module is loaded by `celery … flower`; nobody else needs Flower to be installed."""
    context = click.get_current_context(silent=True)
    if context is not None and context.invoked_subcommand == "flower":
        with _refusing():
            extras.need(extras.FLOWER, "`celery flower`")
            settings = _settings(broker=True)
            check_broker(settings)
            patches.apply(Process.FLOWER, settings)
        for line in patches.switched_off(Process.FLOWER, settings):
            logger.warning(line)
        from worker.celery import flower

        flower.configure(settings)


_prepare_flower()
