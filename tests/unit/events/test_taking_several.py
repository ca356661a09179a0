"""A consumer on Redis that takes several messages at once: when it asks nothing, and what it hears."""

# ruff: noqa: SLF001 - kombu calls these

from queue import Empty
from typing import Any
from unittest.mock import MagicMock

import pytest

from events import redis_transport


def channel() -> Any:
    made: Any = redis_transport._TakingSeveral()
    made.takes_several = True
    for name in ("client", "_queue_cycle", "_flush_brpop_reauth"):
        setattr(made, name, MagicMock())
    made.active_queues = ()
    made.connection_errors = (ConnectionError,)
    return made


def test_without_queues_it_asks_nothing() -> None:
    one = channel()
    one._queue_cycle.consume.return_value = []
    one._brpop_start()
    one.client.connection.send_command.assert_not_called()


def test_no_answer_is_no_message() -> None:
    one = channel()
    one.client.parse_response.return_value = None
    with pytest.raises(Empty):
        one._brpop_read()
    assert one._in_poll is None


def test_a_connection_that_breaks_is_dropped() -> None:
    one = channel()
    one.client.parse_response.side_effect = ConnectionError
    with pytest.raises(ConnectionError):
        one._brpop_read()
    one.client.connection.disconnect.assert_called_once_with()
