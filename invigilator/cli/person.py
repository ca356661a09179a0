"""Who acts on the command line."""

import getpass
import socket
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection

from invigilator.acts.actor import Actor, Via
from invigilator.acts.transactions import acting
from invigilator.cli.database import open_engine
from worker import logs
from worker.engines import resolve
from worker.settings import Settings, load


def person(settings: Settings) -> Actor:
    """Return who acts: the account and the host, or whom INVIGILATOR_ACTOR claims.

    The account and the host are the origin, whoever is claimed.
    """
    origin = f"{_account()}@{socket.gethostname()}"
    return Actor(
        name=settings.actor or origin,
        is_claimed=settings.actor is not None,
        via=Via.COMMAND_LINE,
        origin=origin,
    )


def _account() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # an account that only has a number, such as in a container
        return "unknown"


def acting_as(settings: Settings) -> Actor:
    """Return who acts, and log from now on as the processes do: on standard error, a line for each act."""
    logs.configure(settings.log_format, settings.log_level)
    return person(settings)


@contextmanager
def acting_person() -> Iterator[tuple[Connection, Actor]]:
    """A transaction in which the person acts, and who that is. See `acting_as`."""
    settings = resolve(load(), broker=False)
    actor = acting_as(settings)
    with open_engine(settings) as engine, acting(engine) as connection:
        yield connection, actor
