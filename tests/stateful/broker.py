"""A model of the broker: queues of commands, and offers on their way to the workers."""

from collections.abc import Sequence
from uuid import UUID

from kombu.connection import Connection
from kombu.transport.memory import Channel

from db.offers import Offer
from events.commands import Command
from events.publisher import Publisher
from events.sharding import queue_name
from worker.commands.sources import Message
from worker.errors import Transient
from worker.kinds import QUEUES

SOURCE = "/lms"
SHARDS = 2


class ModelBroker:
    """A broker in memory.

    It has a command queue for each shard. Acknowledged commands may come back, in order. Offers are a bag, because
    Celery's workers take them in any order.
    """

    def __init__(self) -> None:
        self.queues: list[list[Message]] = [[] for _ in range(SHARDS)]
        self.acknowledged: list[list[Message]] = [[] for _ in range(SHARDS)]
        self.offers: list[Offer] = []
        self.taken_before_away: int | None = None
        """The number of offers that the broker accepts before it fails once, or None if it does not fail."""
        self._publisher = Publisher("memory://", source=SOURCE, shards=SHARDS)
        self._reader = Connection("memory://")
        Channel.queues.clear()

    def close(self) -> None:
        """Close the connections of kombu."""
        self._publisher.close()
        self._reader.release()
        Channel.queues.clear()

    # --- commands ----------------------------------------------------------------------------------------

    def publish(self, command: Command) -> None:
        """Publish a command with the real publisher."""
        self._publisher.publish(command)
        self._collect()

    def publish_raw(self, body: bytes, shard: int) -> None:
        """Publish a body as it is."""
        self._publisher.publish_raw(body, shard)
        self._collect()

    def _collect(self) -> None:
        channel = self._reader.default_channel
        for shard, queue in enumerate(self.queues):
            sent = Channel.queues.get(queue_name(shard))
            while sent is not None and sent.qsize():
                raw = sent.get()
                body = channel.message_to_python(raw).body
                queue.append(Message(body, None, raw["content-type"]))

    def acknowledge(self, shard: int, count: int) -> None:
        """Remove the `count` oldest messages from the queue."""
        queue = self.queues[shard]
        self.acknowledged[shard] += queue[:count]
        del queue[:count]

    def bring_back(self, shard: int, count: int) -> None:
        """Put the `count` messages that were acknowledged last back into the queue."""
        gone = self.acknowledged[shard]
        back = gone[max(0, len(gone) - count) :]
        self.queues[shard][:0] = back
        del gone[len(gone) - len(back) :]

    # --- offers ------------------------------------------------------------------------------------------

    def dispatch(self, offers: Sequence[Offer]) -> None:
        """See `worker.effects.relay.Dispatcher`."""
        taken, self.taken_before_away = self.taken_before_away, None
        self.offers += offers if taken is None else offers[:taken]
        if taken is not None:
            raise Transient("the broker is away")

    def queue_length(self, queue: str) -> int:
        """See `worker.effects.relay.Dispatcher`."""
        return sum(QUEUES[offer.kind] == queue for offer in self.offers)

    def take_offer(self, index: int, *, again: bool) -> UUID:
        """Return the effect id of an offer of the bag. With `again`, the offer stays and can be delivered again."""
        index %= len(self.offers)
        return self.offers[index].id if again else self.offers.pop(index).id
