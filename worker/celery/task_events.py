"""Has a worker send events of tasks while somebody asks for them.

Such events cost a tenth of a worker's CPU. A monitor like Flower asks for them again and again, by the remote
control `enable_events`. Celery would send none before it is asked, and then send them until the worker ends. So a
monitor would miss the first tasks of a worker that has just connected. Ours sends events from the start of each
connection, and stops when nobody has asked for a while.
"""

from typing import Any

from celery.bootsteps import StartStopStep
from celery.worker import control
from celery.worker.consumer.events import Events

STARTED_S = 6.0
"""Seconds for which a worker sends events of tasks when it has started. Flower asks every five seconds."""
ASKED_S = 30.0
"""Seconds for which it sends them when it was asked, or has lost its connection, because Flower has then, too."""
GROUP = "task"


class TaskEvents(StartStopStep):  # type: ignore[misc]
    """Turns the events of tasks on and off. A consumer starts this step anew for each connection."""

    requires = (Events,)

    def __init__(self, consumer: Any, **options: Any) -> None:
        consumer.task_events = self
        self._end: Any = None
        super().__init__(consumer, **options)

    def start(self, consumer: Any) -> None:
        """Send events to whoever has not yet been able to ask. See Celery."""
        self.extend(consumer, STARTED_S if self._end is None else ASKED_S)

    def extend(self, consumer: Any, seconds: float = ASKED_S) -> None:
        """Send events for the next seconds."""
        dispatcher = consumer.event_dispatcher
        # Celery makes no dispatcher without heartbeat and gossip. No groups are all groups, which `-E` asks for.
        if dispatcher is None or not dispatcher.groups:
            return
        dispatcher.groups.add(GROUP)
        if self._end is not None:
            self._end.cancel()
        self._end = consumer.timer.call_after(seconds, dispatcher.groups.discard, (GROUP,))


@control.control_command()  # type: ignore[untyped-decorator]
def enable_events(state: Any) -> dict[str, str]:
    """Tell worker(s) to send task-related events for a while. It takes the place of Celery's command."""
    answer: dict[str, str] = control.enable_events(state)
    state.consumer.task_events.extend(state.consumer)
    return answer
