"""What the tests of the outbox write into it, and look at."""

from typing import Any

from django.db import connections

from events.commands import Command, model_of, read_data
from events.django import publish
from events.envelope import render

UPDATE = "exam.attempt.update-status.v1"
SUBMITTED: dict[str, Any] = {"exam_id": "7", "user_id": "42", "to_status": "submitted"}
AWAY = "redis://127.0.0.1:1"


def publish_update(command_id: str, database: str) -> None:
    """Publish a command as an LMS does."""
    publish(UPDATE, command_id=command_id, using=database, **SUBMITTED)


def insert(command_id: str, database: str, user_id: str = "42") -> None:
    """Write a command as another process would, which wakes no courier of ours."""
    from events.django.models import OutboxCommand

    data = read_data(model_of(UPDATE), {**SUBMITTED, "user_id": user_id})
    OutboxCommand.objects.using(database).create(body=render(Command("/lms/acme", command_id, data)))


def waiting(database: str) -> int:
    """How many commands wait."""
    from events.django.models import OutboxCommand

    return int(OutboxCommand.objects.using(database).count())


def close(database: str) -> None:
    """Close this thread's connection."""
    connections[database].close()
