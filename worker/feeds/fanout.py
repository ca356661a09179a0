"""Turns the events of the log into deliveries: one for each webhook that wants the event."""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import psycopg2
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from db import deliveries, event_log
from db.errors import brief
from db.ids import new_receipt
from db.listening import listening, wait
from db.recordset import Row
from db.wake import POSITIONS_CHANNEL
from events.cloudevent import Event
from worker.kinds import DeliverEvent, EffectKind
from worker.logs import get_logger
from worker.subscribers import Webhook

logger = get_logger(__name__)

MAX_DUE = 100
"""The most deliveries of one webhook that are due. Those of more events come to be owed when these are done.

So a webhook that does not answer keeps its backlog in the log, where it costs no task, and where the relay does not
come across it when it looks for what is due.
"""
FULL_PAUSE_S = 0.25
"""Seconds until the next look at a webhook with so many."""

_ENTRY = EffectKind.DELIVER_EVENT.entry


@dataclass(frozen=True, slots=True)
class Fanout:
    """Owes deliveries until told to stop. Several may run: the lock of a cursor lets one at a time.

    Parameters:
        engine: with a direct connection.
        webhooks: by the names of their subscribers.
        source: of the events.
        poll_s: seconds after which it looks without being notified.
    """

    engine: Engine
    webhooks: Mapping[str, Webhook]
    source: str
    poll_s: float

    def run(self, stopping: threading.Event) -> None:
        """Owe the deliveries of what is numbered."""
        while not stopping.is_set():
            try:
                with listening(self.engine, POSITIONS_CHANNEL) as notifications:
                    while not stopping.is_set():
                        is_full = [self.fan_out(name, stopping) for name in self.webhooks]
                        wait(notifications, FULL_PAUSE_S if any(is_full) else self.poll_s, stopping)
            except (DBAPIError, psycopg2.Error) as error:
                self.engine.dispose()  # the session that listened is lost, and no look tells the pool
                logger.warning("the fan-out tries again", reason=brief(error), again_in_s=self.poll_s)
                stopping.wait(self.poll_s)

    def fan_out(self, name: str, stopping: threading.Event) -> bool:
        """Owe a webhook the deliveries of all events that it has not passed, as far as there is room.

        Returns whether events may be left because there was none.

        Parameters:
            stopping: when it is set, the rest is left to the next relay.
        """
        while not stopping.is_set():
            with self.engine.begin() as connection:
                cursor = deliveries.lock_cursor(connection, name)
                if cursor is None:
                    return False
                events = event_log.read(connection, cursor.position)
                wanted = [one for one in events if self.webhooks[name].wants(one.type)]
                room = max(0, MAX_DUE - cursor.due)
                is_full = len(wanted) > room
                passed = _before(events, wanted[room]) if is_full else events
                if passed:
                    self.owe(connection, name, wanted[:room], passed[-1].position)
            if is_full or not events:
                return is_full
        return False

    def owe(self, connection: Connection, name: str, events: Sequence[Event], position: int) -> None:
        """Write deliveries, and move the cursor with them. It is public because a crash point names it."""
        ids = new_receipt().ids()
        rows = [
            {"id": effect_id, **self._delivery(name, event)}
            for effect_id, event in zip(ids, events, strict=False)
        ]
        deliveries.fan_out(connection, name, rows, position)

    def _delivery(self, name: str, event: Event) -> Row:
        data = event.data
        payload = DeliverEvent(
            **{field: data.get(field) or "" for field in ("exam_id", "course_id", "content_id")},
            user_id=event.user_id or "",
            webhook=name.removeprefix(deliveries.PREFIX),
            type=event.type,
            to_status=data.get("to_status"),
            order=self.webhooks[name].order,
        )
        # An event that follows from no command names itself.
        command = data.get("command") or data
        named = command.get("source") is not None and command.get("id") is not None
        return {
            "attempt_code": event.subject,
            "user_id": event.user_id,
            "order_key": _ENTRY.target.order_key(payload, None),
            "payload": asdict(payload),
            "source": command["source"] if named else self.source,
            "command_id": command["id"] if named else str(event.id),
            "event_id": event.id,
            "traceparent": event.traceparent,
        }


def _before(events: Sequence[Event], first_left: Event) -> Sequence[Event]:
    return [one for one in events if one.position < first_left.position]
