"""Writes commands into the outbox."""

from datetime import datetime
from typing import Any

from django.db import router, transaction

from ..commands import model_of
from ..envelope import parse, render
from ..methods import NewCommand
from .config import read_config
from .courier import courier_of


def publish(
    type: str,  # noqa: A002 - what CloudEvents call it
    *,
    command_id: str | None = None,
    time: datetime | None = None,
    traceparent: str | None = None,
    using: str | None = None,
    **data: Any,
) -> str:
    """Write a command in the caller's transaction. It is published after the commit, and never after a rollback.

    It does not wait for the broker. Commands are published in the order in which they were written, so a learner's
    commands keep theirs. Change the attempt first, and publish then: the lock of its row keeps two transactions
    apart that change the same one. Sent again, a command has the same id, and Invigilator takes the two for one.

    Parameters:
        type: the command's type, such as `exam.attempt.update-status.v1`.
        command_id: the command's id; a new one when left out.
        time: when it happened, with an offset from UTC; now when left out.
        traceparent: the trace that the command belongs to (W3C Trace Context). One that is malformed is not sent.
        using: the alias of the database whose transaction it is; by default where Django writes this table.
        data: the fields of the command's data in the contract.

    Returns:
        the command's id.

    Raises:
        InvalidMessageError: an argument is wrong. Nothing was written.
        ImproperlyConfigured: the setting `INVIGILATOR` is wrong.

    Example:
        with transaction.atomic():
            attempt.save()
            publish("exam.attempt.update-status.v1", exam_id="7", user_id="42", to_status="submitted")
    """
    from .models import OutboxCommand  # Django imports models after the packages of all applications

    new = NewCommand(model_of(type), data, command_id, time, traceparent)
    command = new.made_by(read_config().source)
    body = render(command)
    parse(body)  # what Invigilator would not understand is refused here, and not in the outbox
    alias = using or router.db_for_write(OutboxCommand)
    OutboxCommand.objects.using(alias).create(body=body)
    transaction.on_commit(courier_of(alias).wake, using=alias, robust=True)
    return command.id
