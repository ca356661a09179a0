"""Cascade: decline the sibling exams, in the transaction that marks the effect done."""

from db.connect import limit_statements
from db.ids import stamp
from worker.commands.ledger import Cause
from worker.effects.running import Run


def decline(run: Run) -> bool:
    """Decline the siblings of the exam that started the cascade: exactly once, no other system has a part."""
    claim = run.claim
    moment = stamp()
    cause = Cause(claim.source, claim.command_id, moment.at, moment.ids(), claim.id)
    with run.tools.engine.begin() as connection:
        limit_statements(connection, run.deadline.remaining_s())
        run.tools.handler.settle_cascade(connection, claim.id, claim.number, run.payload, cause)
    return True
