"""Where commands come from: Redis or RabbitMQ, behind one small Protocol."""

from worker.commands.sources.base import BrokerAwayError, Message, Source
from worker.commands.sources.opening import open_source

__all__ = ["BrokerAwayError", "Message", "Source", "open_source"]
