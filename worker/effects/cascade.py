"""Cascade: decline the sibling exams, in the transaction that marks the effect done."""

from collections.abc import Sequence

from db.connect import limit_statements
from db.ids import new_receipt
from worker.commands.handler import ClaimedCascade
from worker.commands.unit_of_work import Cause
from worker.effects.action import Run


def decline(runs: Sequence[Run]) -> list[bool]:
    """Decline the siblings of the exams that started the cascades: exactly once, no other system has a part.

    When they wait for one learner's lock for too long, they are run one at a time, and there must be time for that.
    False for one that is no longer this try's.
    """
    tools = runs[0].tools
    with tools.engine.begin() as connection:
        limit_statements(connection, tools.call_timeout_s / min(len(runs), 4))
        return tools.handler.settle_cascades(connection, [_claimed(run) for run in runs])


def _claimed(run: Run) -> ClaimedCascade:
    claim, moment = run.claim, new_receipt()
    cause = Cause(claim.source, claim.command_id, moment.at, moment.ids(), claim.id)
    return ClaimedCascade(claim.id, claim.number, run.payload, cause)
