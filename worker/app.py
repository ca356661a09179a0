"""The Celery application (`celery -A worker.app worker …`): its settings, its tasks, how it starts."""

import os
import re
import runpy
import secrets
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn
from uuid import UUID

import click
from celery import Celery
from celery.app.amqp import AMQP
from celery.concurrency import get_implementation, solo, thread
from celery.exceptions import Retry
from celery.signals import (
    celeryd_after_setup,
    celeryd_init,
    setup_logging,
    worker_init,
    worker_shutdown,
    worker_shutting_down,
)
from celery.utils.nodenames import node_format

from events.errors import InvigilatorError
from worker import extras, logs, patches
from worker.celery import results
from worker.celery.pooling import PoolingConnection
from worker.celery.queues import check_types, effect_queues
from worker.commands.sources.brokers import CELERY_TIMEOUT_S, check_server, read_url_and_entry
from worker.cycles import look_for_cycles_rarely
from worker.effects.running import RunningTries
from worker.engines import resolve
from worker.errors import ConfigurationError, TryAgainError
from worker.heartbeat import STUCK_AFTER_S, Heartbeat, Look
from worker.kinds import QUEUES, EffectKind, task_name
from worker.lms.mail_language import missing_zones
from worker.patches import Process
from worker.settings import Settings, load
from worker.subscriptions import load_subscriptions
from worker.wiring import broker_url, comparison, database_engine, start_traces

if TYPE_CHECKING:
    from worker.effects.runner import Runner

logger = logs.get_logger(__name__)

CELERYCONFIG = Path(__file__).parents[1] / "celeryconfig.py"
POOLS = (thread.TaskPool, solo.TaskPool)  # a pool that forks would lose what `start` prepares

# Each of these would give Celery another broker than that of the commands.
_OVERRIDES = ("CELERY_BROKER_URL", "CELERY_BROKER_READ_URL", "CELERY_BROKER_WRITE_URL")


def check_broker(settings: Settings) -> None:
    """Make sure that Celery uses the broker of the settings, and that this broker is suitable.

    Raises:
        ConfigurationError: Celery would use another broker, or this one is not suitable. A broker that is away is
            no error.
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


def broker_settings() -> dict[str, Any]:
    """Return Celery's settings of the configured broker, and the queues.

    Raises:
        SystemExit: the settings cannot be used. The message says why, in one line.
    """
    settings = _settings(broker=True)
    url, broker = read_url_and_entry(broker_url(settings))
    return {
        "task_queues": effect_queues(settings.effect_queues),
        "broker_url": url.for_kombu,
        "broker_use_ssl": url.ssl,
        "broker_transport_options": {
            **broker.celery_options,
            **url.transport_options(CELERY_TIMEOUT_S),
        },
    }


class Amqp(AMQP):  # type: ignore[misc]
    """Makes Celery connect through `PoolingConnection`."""

    Connection = PoolingConnection


app = Celery("invigilator", amqp=Amqp, task_cls=results.EffectTask)
app.config_from_object(runpy.run_path(str(CELERYCONFIG)))  # a name would find the working folder's file first
app.add_defaults(broker_settings)  # Celery calls it when it needs the broker

process_runner: "Runner | None" = None
"""Runs the effects of this process. `start` makes it: Celery knows one application per process."""

running = RunningTries()
"""The tries that this process has in hand."""

HANGING_LEASES = 2
"""A try hangs that has run for so many leases. Its deadline is half of one, and recording is given up after one."""
_TRIES_TOLD = 20
"""How many tries a sign of life names at most, the oldest first."""
_UNIQUE = re.compile("-[0-9a-f]{8}(?=@)")


@setup_logging.connect  # type: ignore[untyped-decorator]
def log(logfile: str | None = None, **_: Any) -> None:
    """Log as our other processes do. Celery sets up nothing of its own then; of its options `--logfile` counts."""
    settings = _settings()
    logs.configure(settings.log_format, settings.log_level, logfile)


@celeryd_init.connect  # type: ignore[untyped-decorator]
def check_options(options: Mapping[str, Any], **_: Any) -> None:
    """Refuse a command line that cannot work, in one line."""
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

    RabbitMQ gives the control queue of a name to one connection only. The same line of the Procfile may run many
    times on a machine, and process ids repeat between containers. A worker that replaces one that hangs must not
    wait until the old connection ends.
    """
    if sender.logfile:
        # The name of the log file is made from the name that was given.
        sender.logfile = node_format(sender.logfile, sender.hostname)
    name, _, host = sender.hostname.rpartition("@")
    sender.hostname = f"{name}-{secrets.token_hex(4)}@{host}"


def role_of(hostname: str) -> str:
    """Return the line of the Procfile of a worker: its name, as it was given, before the `@`.

    Example:
        >>> role_of("effects-1f3a9c02@host")
        'effects'
    """
    return _UNIQUE.sub("", hostname).partition("@")[0]


@worker_init.connect  # type: ignore[untyped-decorator]
def start(sender: Any, **_: Any) -> None:
    """Prepare this process for its tasks. A worker with wrong settings stops here, before it takes a task."""
    global process_runner
    from worker.effects_wiring import runner  # only a worker needs what calls services

    with _refusing():
        settings = _settings(database=True, broker=True)
        check_broker(settings)
        check_types(app)
        patches.apply(Process.WORKER, settings)
        # Celery resolves "auto" later.
        threads = sender.concurrency if isinstance(sender.concurrency, int) else None
        process_runner = runner(settings, threads)
        start_traces(settings, "worker")


@celeryd_after_setup.connect  # type: ignore[untyped-decorator]
def warn(**_: Any) -> None:
    """Warn of what works less well than it could."""
    from worker.effects_wiring import warn_of_unreached

    settings = _settings(database=True)
    compared = comparison(settings, load_subscriptions(settings.subscriptions_file))
    if compared is not None:
        # It ends with the process.
        run = partial(compared.run, threading.Event())
        threading.Thread(target=run, name="subscriptions", daemon=True).start()
    warn_of_unreached(settings)
    for line in missing_zones():
        logger.warning("mails tell times in UTC", reason=line)
    patches.warn_of_switched_off(Process.WORKER, settings)


@celeryd_after_setup.connect  # type: ignore[untyped-decorator]
def leave_out_the_banner(instance: Any, **_: Any) -> None:
    """Leave out Celery's banner where lines are JSON: a program that reads them can do nothing with it."""
    if (_settings().log_format or logs.default_format(sys.stderr)) == "json":
        instance.quiet = True


@celeryd_after_setup.connect  # type: ignore[untyped-decorator]
def spare_the_search_for_cycles(**_: Any) -> None:
    """Let Python look for garbage in cycles rarely: a worker has loaded now what it needs."""
    look_for_cycles_rarely()


@celeryd_after_setup.connect  # type: ignore[untyped-decorator]
def make_the_backend(**_: Any) -> None:
    """Make Celery's backend, which stores nothing here, before there are threads.

    Its class is looked for among all installed packages. Otherwise each thread would do that at its first task,
    which takes half a second of CPU for sixteen.
    """
    _ = app.backend


class _Beating:
    """The heartbeat of this worker, from its start to its end."""

    heartbeat: Heartbeat | None = None
    is_stopping = False


@celeryd_after_setup.connect  # type: ignore[untyped-decorator]
def begin_to_beat(instance: Any, **_: Any) -> None:
    """Write signs of life from now on."""
    settings = _settings(database=True)
    engine = database_engine(settings, "heartbeat")
    look = partial(look_at_worker, instance, HANGING_LEASES * settings.lease_s)
    _Beating.heartbeat = Heartbeat(engine, {role_of(instance.hostname): look}, settings.heartbeat_s)
    _Beating.heartbeat.start()


@worker_shutting_down.connect  # type: ignore[untyped-decorator]
def tell_that_it_stops(**_: Any) -> None:
    """Have the signs of life say that the worker ends what it has begun."""
    _Beating.is_stopping = True


@worker_shutdown.connect  # type: ignore[untyped-decorator]
def beat_no_more(sender: Any, **_: Any) -> None:
    """Take the row away, unless an error has ended the worker."""
    if _Beating.heartbeat is not None:
        _Beating.heartbeat.stop(leave=not sender.exitcode)
        _Beating.heartbeat = None


def look_at_worker(worker: Any, hanging_after_s: float) -> Look:
    """Return what a worker sees of itself.

    Parameters:
        worker: Celery's.
        hanging_after_s: seconds after which a try hangs. When all threads have such a try, the worker is stuck.
    """
    tries = running.oldest_first()
    hanging = sum(one.for_s > hanging_after_s for one in tries)
    seen = {
        "event loop": worker.consumer.turning.late_s > STUCK_AFTER_S,
        "tries": hanging >= worker.concurrency,
    }
    doing = {
        "queues": sorted(app.amqp.queues.consume_from),
        "running": len(tries),
        "tries": [
            {"effect": one.effect_id, "kind": one.kind, "for_s": round(one.for_s, 1)}
            for one in tries[:_TRIES_TOLD]
        ],
    }
    return Look(doing, [what for what, is_so in seen.items() if is_so], _Beating.is_stopping)


def _add_task(kind: EffectKind) -> None:
    @app.task(name=task_name(kind))  # type: ignore[untyped-decorator]
    def run(effect_id: str) -> str:
        """Run one effect."""
        assert process_runner is not None, "the worker has not been started"
        effect = UUID(effect_id)
        try:
            with running.noted(effect, kind):
                answer = process_runner.run(effect, kind)
        except TryAgainError as error:
            raise Retry(str(error)) from None  # Celery sends nothing again: the relay offers the effect again
        if not answer.is_done:
            raise results.NothingToDo(str(answer))
        return str(answer)


for _kind in EffectKind:
    _add_task(_kind)


def _prepare_flower() -> None:
    """Set up Flower if `celery … flower` loads this module. Only that command needs Flower to be installed."""
    context = click.get_current_context(silent=True)
    if context is not None and context.invoked_subcommand == "flower":
        with _refusing():
            extras.need(extras.FLOWER, "`celery flower`")
            settings = _settings(broker=True)
            logs.configure(settings.log_format, settings.log_level)
            check_broker(settings)
            patches.apply(Process.FLOWER, settings)
        patches.warn_of_switched_off(Process.FLOWER, settings)
        from worker.celery import flower

        flower.configure(settings)


_prepare_flower()
