"""Run by a test: a process of an LMS that is killed at the worst moment.

Arguments: a database, the setting `INVIGILATOR` and a command's id, in JSON, and the moment.
"""

import json
import os
import signal
import sys

import django
import pymysql
from django.conf import settings

AFTER_COMMIT = "after the commit, before a publish"
AFTER_PUBLISH = "after the second publish, before the removal"


def die(*_: object) -> None:
    """End as by the out-of-memory killer."""
    os.kill(os.getpid(), signal.SIGKILL)


def write(command_id: str) -> None:
    """Publish a command in a transaction, and be killed as soon as it is committed."""
    from django.db import transaction

    from events.django import courier, publish

    courier.Courier.wake = die  # type: ignore[method-assign,assignment]
    with transaction.atomic():
        publish(
            "exam.attempt.update-status.v1",
            command_id=command_id,
            exam_id="7",
            user_id="42",
            to_status="submitted",
        )


def send() -> None:
    """Send what is in the outbox, and be killed when two commands were published."""
    from events.commands import Command
    from events.django.sending import send_pending
    from events.publisher import Publisher

    really, published = Publisher.publish, []

    def publish(self: Publisher, command: Command) -> None:
        really(self, command)
        published.append(command)
        if len(published) == 2:
            die()

    Publisher.publish = publish  # type: ignore[method-assign,assignment]
    send_pending("default")


if __name__ == "__main__":
    database, invigilator, command_id = map(json.loads, sys.argv[1:4])
    pymysql.install_as_MySQLdb()
    settings.configure(
        INSTALLED_APPS=["events.django"],
        USE_TZ=True,
        DATABASES={"default": database},
        INVIGILATOR=invigilator,
    )
    django.setup()
    if sys.argv[4] == AFTER_COMMIT:
        write(command_id)
    else:
        send()
