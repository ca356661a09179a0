"""Runs the demo from start to end: starts the system, plays a session on it, and stops the system."""

import os
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TextIO

from pydantic import SecretStr
from rich.console import Console

from invigilator.demo.driver import SessionDriver
from invigilator.demo.expected import expect
from invigilator.demo.preflight import prepare, refuse_queued
from invigilator.demo.reference import MailSink, ReferenceLms
from invigilator.demo.session import COURSE_NAME, generate
from invigilator.local.server import HOST
from invigilator.local.supervision import PartEndedError
from invigilator.local.up import NO_FLOWER, NO_WEB, WEB_ADDRESS, System, environment
from worker import extras, folder_lock
from worker.lms.mail_templates import MailTemplates
from worker.settings import Settings
from worker.signals import on_stop_signals
from worker.wiring import policies

SEED = 7
LMS_FAILS = 0.1
"""The fraction of calls that the reference LMS answers with 503."""
LOG = "demo.log"
WATCH_S = 0.2
HINTS = ("status", "effects list --state superseded", "commands list --outcome rejected", "quarantine list")

Stopped = Callable[[], bool]


def run_demo(settings: Settings, console: Console, *, keep: bool) -> bool:
    """Run the demo in the foreground. Only the main thread may call this.

    Parameters:
        settings: the settings of the system. The demo replaces those of the LMS and the mail server.
        console: shows progress and results. It must have no markup, because the names of folders may contain
            brackets.
        keep: whether the system stays up afterwards, until Ctrl-C.

    Returns:
        whether every result is as the rules say.

    Raises:
        AlreadyRunningError: a system runs on the data folder.
        ConfigurationError: something is missing, or the engines hold work of another system.
        PartEndedError: an engine ended, or a part of the system kept ending.
        StalledError: the session made no progress for a minute. The message says what is missing.
        StoppedError: Ctrl-C or SIGTERM came before the end.
    """
    token = settings.lms_token.get_secret_value() if settings.lms_token else None
    with ReferenceLms(fail_fraction=LMS_FAILS, seed=SEED, token=token) as lms, MailSink() as sink:
        settings = settings_for(settings, lms, sink)
        with _log_file(settings.data_dir) as log:
            try:
                return _play(settings, console, lms, sink, log, keep=keep)
            except PartEndedError as error:
                raise PartEndedError(f"{error}; the log {log.name} says why") from error


def _play(
    settings: Settings, console: Console, lms: ReferenceLms, sink: MailSink, log: TextIO, *, keep: bool
) -> bool:
    session = generate(secrets.token_hex(3), seed=SEED, start=datetime.now(UTC))
    expected = expect(
        session,
        policies(settings),
        instructor=settings.instructor == "on",
        mail_templates=MailTemplates(settings.templates_dir),
    )
    lms.name_course(session.course_id, COURSE_NAME)
    flower = _where_flower_is(settings)
    # As with Flower's port: `up` would choose it, and write it to its log only.
    settings = settings.model_copy(update={"web_address": environment(settings)[WEB_ADDRESS]})
    refuse_queued(settings)
    # A killed process may have left a lease on a shard. Twice its length is enough for it to expire.
    system = System(settings, output=log, migrate=partial(prepare, patience_s=2 * settings.shard_lease_s))
    with _stopping(system) as stopped, _up(system, console):
        console.print(f"the system is up; its log is {log.name}", highlight=False, soft_wrap=True)
        console.print(flower, highlight=False, soft_wrap=True)
        console.print(_where_the_console_is(settings), highlight=False, soft_wrap=True)
        good = SessionDriver(session, expected, system, lms, sink, console, stopped).run()
        if keep:
            _stay(system, console, stopped)
    return good


def settings_for(settings: Settings, lms: ReferenceLms, sink: MailSink) -> Settings:
    """Return the settings with which the system works for the demo.

    The session is short, so retries come soon. It has a source of its own, which no file of command keys contains.
    """
    changes = {
        "lms_url": lms.url,
        "smtp_url": SecretStr(sink.url),
        "retry_base_s": 0.2,
        "retry_cap_s": 2.0,
        "poll_s": 0.5,
        # The effects of a killed worker become due again well before the demo takes the session for stalled.
        "lease_s": min(settings.lease_s, 3 * settings.call_timeout_s),
        "data_dir": settings.data_dir.absolute(),
        "command_keys_file": None,
    }
    return settings.model_copy(update=changes)


def _where_flower_is(settings: Settings) -> str:
    if extras.missing(extras.FLOWER):
        return f"{NO_FLOWER}: {extras.how_to_install(extras.FLOWER)}"
    # The system writes the port to its log only. It is chosen here, so that the demo can show it.
    port = os.environ["FLOWER_PORT"] = environment(settings)["FLOWER_PORT"]
    return f"Flower is at http://{HOST}:{port}"


def _where_the_console_is(settings: Settings) -> str:
    if extras.missing(extras.WEB):
        return f"{NO_WEB}: {extras.how_to_install(extras.WEB)}"
    return f"the console is at http://{settings.web_address}/console/"


@contextmanager
def _log_file(data_dir: Path) -> Iterator[TextIO]:
    with folder_lock.as_configuration_error(data_dir):
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Another demo may be running. Ours will then be refused, and it must not truncate the other's log.
        log = (data_dir / LOG).open("a" if folder_lock.is_held(data_dir) else "w", encoding="utf-8")
    with log:
        yield log


@contextmanager
def _up(system: System, console: Console) -> Iterator[None]:
    with ExitStack() as running:
        with console.status("starting the system"):
            running.enter_context(system)
        yield
        with console.status("stopping the system"):
            running.close()


@contextmanager
def _stopping(system: System) -> Iterator[Stopped]:
    """Turn stop signals into requests to end. Yields a function that returns whether a signal has come."""
    came: list[None] = []

    def stop() -> None:
        came.append(None)
        system.stop()  # a second call kills the processes at once

    with on_stop_signals(stop):
        yield lambda: bool(came)


def _stay(system: System, console: Console, stopped: Stopped) -> None:
    """Keep the system up until a stop signal comes."""
    console.print("the system stays up until Ctrl-C; in another terminal, try:", highlight=False)
    for hint in HINTS:
        console.print(f"  invigilator {hint}", highlight=False, soft_wrap=True)
    while not stopped():
        system.check()
        time.sleep(WATCH_S)
