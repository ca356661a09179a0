"""Acts on messages in quarantine: what leaves it, and the rows that say so."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
from sqlalchemy import Engine

from db import acts
from db.quarantine_filters import Fitting
from events.errors import PublishError
from invigilator.acts import effects, messages, quarantine
from invigilator.acts.actor import Actor, Via
from invigilator.acts.messages import BulkOfMessages
from invigilator.acts.transactions import acting
from tests.integration.cli.conftest import Record

OPS = Actor("ops@host", True, Via.COMMAND_LINE, "ops@host")
EVE = Actor("eve", False, Via.CONSOLE, "10.0.0.1")
NUMBER = 5


@dataclass
class Publisher:
    """A broker that takes so many messages."""

    room: int = 100
    shards: int = 1
    bodies: list[bytes] = field(default_factory=list)

    def publish_raw(self, body: bytes, shard: int, content_type: str, headers: Mapping[str, str]) -> None:
        if len(self.bodies) == self.room:
            raise PublishError
        self.bodies.append(body)


@pytest.fixture
def record(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Record:
    """Messages of two learners, and a step that takes two of them."""
    monkeypatch.setattr(messages, "STEP_MESSAGES", 2)
    record = Record(engine)
    for number in range(NUMBER):
        record.quarantine(b"%d" % number, source="/lms", user_id=f"u{number // 2}")
    record.quarantine(b"other", source="/other")
    return record


def audit(record: Record) -> list[dict[str, Any]]:
    """Oldest first. The chain holds."""
    with record.engine.connect() as connection:
        assert acts.verify(connection).holds
        return list(acts.acts(connection))[::-1]


def steps(act: BulkOfMessages) -> Iterator[None]:
    while not act.is_over:
        act.step()
        yield


def test_replaying_all_is_one_act_with_a_row_for_each_step_and_one_that_closes(record: Record) -> None:
    publisher = Publisher()
    act = messages.replay_all(record.engine, OPS, publisher, Fitting(source="/lms"), "mended")
    list(steps(act))
    assert publisher.bodies == [b"%d" % number for number in range(NUMBER)]
    assert len(record.quarantine_ids()) == 1
    *rows, closing = audit(record)
    assert {row["act_id"] for row in (*rows, closing)} == {act.progress.id}
    assert [(row["number"], row["closing"], row["user_id"]) for row in rows] == [
        (2, False, "u0"),
        (2, False, "u1"),
        (1, False, "u2"),
    ]
    assert (closing["number"], closing["closing"]) == (NUMBER, True)
    assert closing["details"] == {"expected": NUMBER, "refused": 0, "state": "finished"}
    assert {row["reason"] for row in (*rows, closing)} == {"mended"}
    assert rows[0]["filter"] == closing["filter"] == {"messages": {"source": "/lms"}}
    # And which messages, and where they went
    assert [one["user_id"] for one in rows[0]["details"]["before"]] == ["u0", "u0"]
    assert rows[0]["details"]["after"] == [{"shard": 0}, {"shard": 0}]


def test_discarding_all_is_one_act_too(record: Record) -> None:
    act = messages.discard_all(record.engine, OPS, Fitting(source="/lms"), "spam")
    list(steps(act))
    rows = audit(record)
    assert {row["act_id"] for row in rows} == {act.progress.id}
    assert [row["number"] for row in rows] == [2, 2, 1, NUMBER]
    assert len(record.quarantine_ids()) == 1


def test_who_stops_it_is_told(record: Record) -> None:
    act = messages.discard_all(record.engine, OPS, Fitting(), "spam")
    for _ in steps(act):
        with acting(record.engine) as connection:
            stopped = effects.stop(connection, EVE, act.progress.id)
    # The second time it was over
    assert not stopped
    assert (act.progress.state, len(record.quarantine_ids())) == ("stopped", NUMBER - 1)
    told = [(row["actor"], row["action"], row["number"], row["closing"]) for row in audit(record)]
    assert told == [
        ("ops@host", "discard", 2, False),
        ("eve", "stop", 0, False),
        ("ops@host", "discard", 2, True),
    ]
    assert len({row["act_id"] for row in audit(record)}) == 1


def test_a_step_that_the_broker_does_not_take_leaves_nothing(record: Record) -> None:
    publisher = Publisher(room=3)
    act = messages.replay_all(record.engine, OPS, publisher, Fitting(), "mended")
    act.step()
    with pytest.raises(PublishError):
        act.step()
    assert [row["number"] for row in audit(record)] == [2]
    # When the broker is back, the step is made again
    publisher.room = 100
    list(steps(act))
    assert act.progress.done == NUMBER + 1
    assert [row["number"] for row in audit(record)] == [2, 2, 2, NUMBER + 1]


def test_those_that_are_named_are_one_act(record: Record) -> None:
    first, second, third, *_ = record.quarantine_ids()
    publisher = Publisher(room=2)
    refused = quarantine.replay(record.engine, OPS, publisher, [first, 99, second, third, first], "mended")
    assert refused.keys() == {99, third}
    rows = audit(record)
    assert len({row["act_id"] for row in rows}) == 1
    assert [(row["number"], row["closing"]) for row in rows] == [(1, False), (1, False), (2, True)]
    assert rows[-1]["details"]["refused"] == 2
