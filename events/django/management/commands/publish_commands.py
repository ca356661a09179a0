"""`manage.py publish_commands`: publishes what is in the outbox."""

import signal
from argparse import ArgumentParser
from threading import Event
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import DEFAULT_DB_ALIAS

from ....errors import InvigilatorError
from ...sending import send_pending, send_until


class Command(BaseCommand):  # type: ignore[misc]
    """See Django."""

    help = "Publishes the commands in the outbox, oldest first, until SIGTERM. More processes stand by."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """See Django."""
        parser.add_argument("--once", action="store_true", help="Publish what is there, and end.")
        parser.add_argument("--database", default=DEFAULT_DB_ALIAS, help="The alias of the database.")

    def handle(self, *, once: bool, database: str, **_options: Any) -> None:
        """See Django."""
        if not once:
            send_until(_stopped_by_signals(), database)
            return
        try:
            sent = send_pending(database)
        except InvigilatorError as error:
            raise CommandError(str(error)) from None
        self.stdout.write(f"published: {sent}")


def _stopped_by_signals() -> Event:
    stopped = Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    return stopped
