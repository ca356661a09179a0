"""Publishes events to a topic exchange of RabbitMQ, with confirms."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Self

from events.broker_url import BrokerUrl
from events.connecting import broker_errors, reason_of
from events.envelope import CONTENT_TYPE
from worker.commands.sources.base import BrokerAwayError
from worker.commands.sources.rabbitmq_connection import (
    ANSWER_TIMEOUT_S,
    PERSISTENT,
    connection_to,
    is_declared_otherwise,
)
from worker.feeds.base import Publication


@dataclass(slots=True)
class RabbitTarget:
    """A durable topic exchange. Whoever wants events binds a queue to it; without a queue they are dropped.

    All messages of a batch are on their way at once, and then all are confirmed. kombu would wait for each.
    """

    connection: Any
    channel: Any
    exchange: str
    unconfirmed: set[int] = field(default_factory=set)
    sent: int = 0
    is_refused: bool = False

    @classmethod
    def open(cls, broker: BrokerUrl, exchange: str) -> Self:
        """Connect to the first of its hosts that answers, and declare the exchange.

        Raises:
            BrokerAwayError: no connection, or the exchange exists as another one.
        """
        connection = connection_to(broker)
        with _broker(connection):
            connection.connect()
            target = cls(connection, connection.channel(), exchange)
            try:
                target._prepare()
            except BrokerAwayError:
                target.close()
                raise
        return target

    def publish(self, publications: Sequence[Publication], epoch: int) -> None:  # noqa: ARG002
        """See `Target`. RabbitMQ cannot check the epoch with the write."""
        with _broker(self.connection):
            for one in publications:
                message = self.channel.prepare_message(
                    one.body,
                    content_type=CONTENT_TYPE,
                    properties={"delivery_mode": PERSISTENT, "message_id": one.id},
                )
                self.sent += 1
                self.unconfirmed.add(self.sent)
                self.channel.basic_publish(message, exchange=self.exchange, routing_key=one.type)
            while self.unconfirmed:
                self.connection.drain_events(timeout=ANSWER_TIMEOUT_S)
        if self.is_refused:
            raise BrokerAwayError("the broker takes no events: it has refused one")

    def close(self) -> None:
        """See `Target`."""
        self.connection.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _prepare(self) -> None:
        try:
            self.channel.exchange_declare(self.exchange, "topic", durable=True, auto_delete=False)
        except self.connection.channel_errors as error:
            if is_declared_otherwise(error):
                raise BrokerAwayError(
                    f"exchange {self.exchange} exists and is no durable topic exchange: delete it, or choose "
                    "another name"
                ) from error
            raise
        self.channel.confirm_select()
        self.channel.events["basic_ack"].add(self._on_ack)
        self.channel.events["basic_nack"].add(self._on_nack)

    def _on_ack(self, delivery_tag: int, multiple: bool) -> None:
        # RabbitMQ counts the messages of a channel from 1.
        self.unconfirmed -= (
            {tag for tag in self.unconfirmed if tag <= delivery_tag} if multiple else {delivery_tag}
        )

    def _on_nack(self, delivery_tag: int, multiple: bool) -> None:
        self.is_refused = True
        self._on_ack(delivery_tag, multiple)


@contextmanager
def _broker(connection: Any) -> Iterator[None]:
    try:
        yield
    except broker_errors(connection) as error:  # a TimeoutError is among them
        connection.collect()
        raise BrokerAwayError(f"the broker takes no events: {reason_of(error)}") from error
