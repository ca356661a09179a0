"""Logs what was decided of each command of a batch that is committed."""

import logging
from typing import Any

from db.inbox import Handled
from events.commands import Command
from events.tracing import trace_of
from events.vocabulary import Outcome
from worker.commands.handler import Written
from worker.logs import get_logger

logger = get_logger(__name__)


def report(written: Written, shard: int) -> None:
    """Log one line for each decision and each message in quarantine.

    Applied commands are at DEBUG, because the history has them.

    Parameters:
        written: what the batch has written.
        shard: where it came in.
    """
    log = logger.bind(shard=shard)
    for command, handled in written.decided:
        if handled.outcome is Outcome.APPLIED:
            if log.is_enabled_for(logging.DEBUG):
                log.debug("command applied", **_about(command, handled))
        else:
            log.info(
                "command not applied", outcome=handled.outcome, code=handled.code, **_about(command, handled)
            )
    for message in written.quarantined:
        log.warning(
            "a message went to quarantine",
            source=message.source,
            command=message.command_id,
            code=message.code,
            reason=message.detail,
        )
    if written.discarded:
        log.warning("the quarantine is full", discarded=written.discarded)


def _about(command: Command, handled: Handled) -> dict[str, Any]:
    return {
        "source": command.source,
        "command": command.id,
        "type": command.type,
        "user": command.data.learner_id,
        "exam": getattr(command.data, "exam_id", None),
        "attempt": handled.attempt_code,
        "trace": trace_of(command.traceparent),
    }
