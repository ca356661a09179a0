"""Cascade: decline the sibling exams, in the transaction that marks the effect done."""

from collections.abc import Sequence

from db.connect import limit_statements
from db.ids import new_receipt
from worker.commands.handler import ClaimedCascade
from worker.commands.records import Cause
from worker.effects.action import Recorded, Run
from worker.effects.coalescer import Coalescer, one_is_to_blame
from worker.kinds import CascadeDecline

CascadeRun = Run[CascadeDecline]


class Decline(Coalescer[CascadeRun, Recorded]):
    """Declines the siblings of an exam. Cascades that are due at the same time share a transaction."""

    def __init__(self) -> None:
        super().__init__(decline, isolate=one_is_to_blame)


def decline(runs: Sequence[CascadeRun]) -> list[Recorded]:
    """Decline the siblings of the exams that started the cascades. Each happens exactly once.

    A batch that waits too long for one learner's lock is run again one by one, so its statements get only a part of
    the time of a call.

    Returns `BY_ACTION` for each that was done. Any other is no longer this try's: the runner notices that when it
    records.
    """
    tools = runs[0].tools
    with tools.engine.begin() as connection:
        limit_statements(connection, tools.call_timeout_s / min(len(runs), 4))
        done = tools.handler.settle_cascades(connection, [_claimed(run) for run in runs])
    return [Recorded.BY_ACTION if one else Recorded.BY_RUNNER for one in done]


def _claimed(run: CascadeRun) -> ClaimedCascade:
    claim, moment = run.claim, new_receipt()
    cause = Cause(
        claim.source,
        claim.command_id,
        moment.at,
        moment.at,
        moment.ids(),
        effect_id=claim.id,
        traceparent=claim.traceparent,
    )
    return ClaimedCascade(claim.id, claim.number, run.payload, cause)
