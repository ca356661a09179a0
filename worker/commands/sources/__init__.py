"""Where commands come from: queues on Redis or RabbitMQ, behind one Protocol. `brokers` has an entry for each."""

from worker.commands.sources.base import BrokerAwayError, Message, Source
from worker.commands.sources.brokers import open_source

__all__ = ["BrokerAwayError", "Message", "Source", "open_source"]
