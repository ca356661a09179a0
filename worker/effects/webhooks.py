"""Webhooks: deliver an event to an endpoint."""

from collections.abc import Sequence

from db import deliveries
from db.deliveries import Owed
from events.cloudevent import render
from worker import kinds
from worker.effects.action import Recorded, Run
from worker.effects.coalescer import Coalescer, one_is_to_blame
from worker.errors import Permanent
from worker.lms.ports import Delivery

DeliveryRun = Run[kinds.DeliverEvent]


class Deliver:
    """Sends the event to the endpoint. It is rendered anew for each try, into the same bytes.

    Deliveries that are due at the same time look up their events together.
    """

    def __init__(self) -> None:
        self.owed = Coalescer(_owed, isolate=one_is_to_blame)

    def __call__(self, run: DeliveryRun) -> Recorded:
        """Look up the event and call the endpoint."""
        owed = self.owed(run)
        if owed.definition is None:
            raise Permanent(f"{owed.subscriber} subscribes no more")
        if owed.event is None:
            raise Permanent("the event is no longer kept")
        delivery = Delivery(
            owed.subscriber,
            owed.event.id,
            render(owed.event, run.tools.event_source),
            run.claim.traceparent,
            owed.definition,
        )
        run.tools.services.webhooks.send(delivery, run.deadline)
        return Recorded.BY_RUNNER


def _owed(runs: Sequence[DeliveryRun]) -> list[Owed]:
    effect_ids = [run.claim.id for run in runs]
    with runs[0].tools.engine.connect() as connection:
        found = deliveries.owed(connection, effect_ids)
    return [found[effect_id] for effect_id in effect_ids]
