"""Webhooks: deliver an event to an endpoint."""

import orjson

from events.cloudevent import as_object
from worker import kinds
from worker.effects.action import Recorded, Run
from worker.errors import Permanent
from worker.lms.ports import Delivery


class Deliver:
    """Sends the event to the endpoint. It is rendered anew for each try, into the same bytes."""

    def __call__(self, run: Run[kinds.DeliverEvent]) -> Recorded:
        """Call the endpoint."""
        owed = run.owed
        if owed is None or owed.definition is None:
            raise Permanent(f"{run.claim.queue} subscribes no more")
        if owed.event is None:
            raise Permanent("the event is no longer kept")
        delivery = Delivery(
            owed.subscriber,
            owed.event.id,
            orjson.dumps(as_object(owed.event, run.tools.event_source)),
            run.claim.traceparent,
            owed.definition,
        )
        run.tools.services.webhooks.send(delivery, run.deadline)
        return Recorded.BY_RUNNER
