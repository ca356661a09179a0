"""The description that a Redis server gives of itself, in both versions of the protocol."""

from typing import Any

import pytest
from redis.exceptions import ResponseError

from events.redis_server import UnsuitableServerError, refuse_unsuitable


class Answering:
    """A client with a fixed answer of the server."""

    def __init__(self, answer: Any) -> None:
        self._answer = answer

    def execute_command(self, command: str) -> Any:
        assert command == "HELLO"
        if isinstance(self._answer, Exception):
            raise self._answer
        return self._answer


def told(mode: str) -> list[Any]:
    """The answers of servers, as redis-py returns them."""
    facts = {b"version": b"7.2.4", b"proto": 3, b"mode": mode.encode(), b"role": b"master"}
    plain = {"version": "7.2.4", "mode": mode}
    return [facts, [one for pair in facts.items() for one in pair], plain]


@pytest.mark.parametrize("answer", [*told("cluster"), *told("sentinel")])
def test_what_cannot_be_our_broker_is_refused(answer: Any) -> None:
    with pytest.raises(UnsuitableServerError, match="is a "):
        refuse_unsuitable(Answering(answer))


def test_a_database_that_is_not_there_is_refused() -> None:
    with pytest.raises(UnsuitableServerError, match="has no database of that number"):
        refuse_unsuitable(Answering(ResponseError("DB index is out of range")))


@pytest.mark.parametrize("answer", told("standalone"), ids=str)
def test_everything_else_is_taken_and_says_its_version(answer: Any) -> None:
    assert refuse_unsuitable(Answering(answer)) == 7


@pytest.mark.parametrize(
    "answer", [{}, [], {"version": "unstable"}, ResponseError("unknown command 'HELLO'")], ids=str
)
def test_a_server_that_says_no_version_counts_as_the_oldest(answer: Any) -> None:
    assert refuse_unsuitable(Answering(answer)) == 0
