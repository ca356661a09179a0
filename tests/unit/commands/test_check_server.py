"""The check of a broker before it is used: Redis servers are asked, RabbitMQ is not."""

import socket

import pytest

from worker.commands.sources.brokers import check_server


def test_a_server_that_is_away_may_come_back() -> None:
    check_server("redis://127.0.0.1:1")
    check_server("sentinel://127.0.0.1:1,127.0.0.1:2")


def test_rabbitmq_is_not_asked() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        check_server(f"amqp://127.0.0.1:{listener.getsockname()[1]}")
        listener.settimeout(0)
        with pytest.raises(BlockingIOError):
            listener.accept()
