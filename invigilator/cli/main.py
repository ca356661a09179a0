"""The entry point of `invigilator`. It turns errors into one line and an exit status: 0 done, 1 failed, 2 usage."""

import atexit
import gc
import os
import sys
from collections.abc import Sequence
from io import TextIOWrapper
from pathlib import Path
from traceback import extract_tb
from typing import NoReturn

import click

from events.errors import InvigilatorError
from invigilator.cli import (
    attempts,
    audit,
    commands,
    decide,
    demo,
    doctor,
    effects,
    email,
    events,
    learners,
    lms,
    partitions,
    pauses,
    prune,
    publish,
    quarantine,
    shards,
    status,
    system,
    web,
    webhooks,
)
from invigilator.cli.output import warn

INTERRUPTED = 130  # the status that shells report for a program that Ctrl-C ended

# Python would look for garbage in all that was imported when it ends, which is a fifth of a command's CPU time.
atexit.register(gc.freeze)


@click.group("invigilator", no_args_is_help=False)
@click.version_option(package_name="invigilator", message="%(prog)s %(version)s", help="Print the version.")
def invigilator() -> None:
    """Keeps the record of online exam attempts, and never loses what must follow from them."""


for command in (
    system.up,
    system.migrate,
    system.consume,
    system.relay,
    system.work,
    status.status,
    publish.publish,
    attempts.app,
    audit.app,
    commands.app,
    effects.app,
    email.app,
    events.app,
    learners.app,
    lms.app,
    pauses.pause,
    pauses.resume,
    quarantine.app,
    shards.app,
    partitions.app,
    prune.prune,
    decide.decide,
    demo.demo,
    doctor.doctor,
    web.web,
    web.token,
    webhooks.app,
):
    invigilator.add_command(command)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run one command and exit.

    Parameters:
        arguments: the words after `invigilator`. The default is the arguments of the process.

    Raises:
        SystemExit: always, with the exit status.
    """
    given = sys.argv[1:] if arguments is None else list(arguments)
    _open_streams()
    sys.exit(_close_streams(_run(given)))


def _open_streams() -> None:
    # A stream is None when the shell has closed it (`>&-`).
    sys.stdout = sys.stdout or Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 - until the end
    sys.stderr = sys.stderr or Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115
    if isinstance(sys.stdout, TextIOWrapper):
        # A terminal without UTF-8 shows escapes instead of an error.
        sys.stdout.reconfigure(errors="backslashreplace")


def _close_streams(status: int) -> int:
    """Flush both streams. Return `status`, or 1 when it is 0 and something cannot be written."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError as error:
            # Python flushes once more when it exits. Without this it would print an error then.
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
            if status == 0 and not isinstance(error, BrokenPipeError):
                warn(_explain(error))
                status = 1
    return status


def _run(given: Sequence[str]) -> int:
    if not _is_utf8(given):
        warn("an argument is not UTF-8; see `invigilator --help`")
        return 2
    try:
        # `invigilator()` would print errors in click's own way.
        with invigilator.make_context("invigilator", [*given]) as context:
            invigilator.invoke(context)
    except click.exceptions.Exit as ended:
        return ended.exit_code
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of our output has gone (`| head`), which is not an error. A broken pipe of a broker's
        # connection does not get here, because the publisher turns it into an error of ours.
        return 0
    except click.ClickException as error:
        warn(_explain_usage(error))
        return error.exit_code
    except Exception as error:  # noqa: BLE001 - a person gets one line, never a traceback
        warn(_explain(error))
        return 1
    return 0


def _is_utf8(arguments: Sequence[str]) -> bool:
    try:
        "".join(arguments).encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _explain_usage(error: click.ClickException) -> str:
    context = getattr(error, "ctx", None)
    path = context.command_path if context else "invigilator"
    return f"{error.format_message().rstrip('.')}; see `{path} --help`"


def _explain(error: Exception) -> str:
    from sqlalchemy.exc import DBAPIError

    if isinstance(error, InvigilatorError):
        return str(error)
    if isinstance(error, DBAPIError):
        return _explain_database(error)
    if isinstance(error, OSError):
        return f"{error.strerror or type(error).__name__}: {error.filename or 'check the system'}"
    # The text of an unexpected error may quote personal data or secrets, so only its class and place are shown.
    *_, place = extract_tb(error.__traceback__)
    return f"unexpected {type(error).__name__} at {place.filename}:{place.lineno}; please report it"


def _explain_database(error: Exception) -> str:
    from sqlalchemy.exc import DBAPIError

    from db.errors import Failure, brief, classify, sqlstate

    assert isinstance(error, DBAPIError)
    state = sqlstate(error)
    if state in ("42P01", "42703"):  # undefined table, undefined column
        return _explain_schema()
    failure = classify(error)
    if failure is Failure.UNAVAILABLE and state is None:
        return f"{brief(error)}; check that the database is up and that INVIGILATOR_DATABASE_URL is right"
    if failure is Failure.RETRY:
        return f"{brief(error)}; another transaction was in the way; try again"
    return f"{brief(error)}; see the database's log"


def _explain_schema() -> str:
    from sqlalchemy.exc import DBAPIError

    from db.compatibility import Schema, compare
    from invigilator.cli.database import reading

    try:
        with reading() as connection:
            schema = compare(connection)
    except DBAPIError:
        schema = Schema.OLDER
    return Schema.NEWER if schema is Schema.NEWER else Schema.OLDER
