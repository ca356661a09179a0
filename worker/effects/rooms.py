"""How many effects may be offered: offers that nobody has answered and messages that wait are both bounded.

docs/decisions/0003-relay-asks-how-long-the-queue-is.md has the reasons.
"""

import time
from collections import Counter
from collections.abc import Callable, Sequence

from sqlalchemy import Connection

from db import offers
from db.offers import Offer
from worker.kinds import QUEUES

MAX_OUTSTANDING = 500
"""The most offers of one kind that no worker has answered yet, and the most messages in one queue."""
ASK_EVERY_S = 10.0
"""Seconds for which an answer of the broker is good. Asking also declares a queue that somebody has deleted."""


class Rooms:
    """Counts up from what the database and the broker said last, and asks again when that may be too much.

    The counts are upper bounds, because what was offered since may have been answered. So a relay with little to do
    asks nobody, and a relay with much to do asks after every `MAX_OUTSTANDING / 2` offers at the latest.
    """

    def __init__(self, queue_length: Callable[[str], int]) -> None:
        """Make it without knowledge.

        Parameters:
            queue_length: asks the broker how many messages wait in a queue. May raise `Transient`.
        """
        self._queue_length = queue_length
        self.forget()

    def forget(self) -> None:
        """Forget what was said, so that the next question asks again."""
        self._unanswered = Counter[str]()
        self._waiting: dict[str, int] = {}
        self._ask_at = time.monotonic() + ASK_EVERY_S

    def sizes(self, connection: Connection, kinds: Sequence[str]) -> dict[str, int]:
        """Return how many of each kind may be offered. Kinds of one queue share its room.

        Raises:
            Transient: the broker is away.
        """
        if time.monotonic() >= self._ask_at:
            self.forget()
        if any(self._may_be_short(kind) for kind in kinds):
            self._unanswered = Counter(offers.outstanding(connection, kinds))
            # The length of the queue counts, too: it keeps its messages while its workers are away, and the same
            # rows offered again and again would flood it.
            self._waiting |= {queue: self._queue_length(queue) for queue in {QUEUES[kind] for kind in kinds}}
        sharing = Counter(QUEUES[kind] for kind in kinds)
        shares = {
            queue: (MAX_OUTSTANDING - self._waiting[queue]) // number for queue, number in sharing.items()
        }
        return {kind: min(MAX_OUTSTANDING - self._unanswered[kind], shares[QUEUES[kind]]) for kind in kinds}

    def take(self, made: Sequence[Offer]) -> None:
        """Count offers that were made."""
        for offer in made:
            self._unanswered[offer.kind] += 1
            self._waiting[QUEUES[offer.kind]] += 1

    def _may_be_short(self, kind: str) -> bool:
        waiting = self._waiting.get(QUEUES[kind], MAX_OUTSTANDING)
        return max(waiting, self._unanswered[kind]) > MAX_OUTSTANDING // 2
