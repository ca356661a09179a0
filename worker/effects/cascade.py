"""Cascade: decline the sibling exams, in the transaction that marks the effect done."""

from collections.abc import Sequence

from db.connect import limit_statements
from db.ids import stamp
from worker.commands.handler import ClaimedCascade
from worker.commands.ledger import Cause
from worker.effects.running import Run


def decline(runs: Sequence[Run]) -> list[bool]:
    """Decline the siblings of the exams that started the cascades: exactly once, no other system has a part."""
    tools = runs[0].tools
    with tools.engine.begin() as connection:
        limit_statements(connection, min(run.deadline.remaining_s() for run in runs))
        tools.handler.settle_cascades(connection, [_claimed(run) for run in runs])
    return [True for _ in runs]


def _claimed(run: Run) -> ClaimedCascade:
    claim, moment = run.claim, stamp()
    cause = Cause(claim.source, claim.command_id, moment.at, moment.ids(), claim.id)
    return ClaimedCascade(claim.id, claim.number, run.payload, cause)
