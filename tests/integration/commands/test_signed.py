"""Signed commands through both brokers: what is forged, in every way, changes nothing; what is not, is applied."""

import json
from base64 import b64encode
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from redis import Redis
from sqlalchemy import Engine, text

from db import shards
from events.commands import Command, CommandData
from events.envelope import render
from events.publisher import Publisher
from events.sharding import queue_name
from events.signing import SIGNATURE_HEADER, sign
from tests import sample_commands as c
from tests.integration.commands.test_consumer import LEASE_S, running, until
from worker.commands.batches import Batches
from worker.commands.consumer import Consumer
from worker.commands.handler import Handler
from worker.commands.sources import open_source
from worker.commands.trust import load_trust
from worker.policies import Policies

EXAMS, REVIEW = "/exams", "/review"
KEY, OLDER, REVIEWS_KEY, UNKNOWN = ("k" * 32, "o" * 32, "r" * 32, "u" * 32)
FILE = f"""
["{EXAMS}"]
keys = ["{KEY}", "{OLDER}"]
types = ["course.upsert.v1", "exam.upsert.v1", "learner.upsert.v1", "exam.attempt.create.v1",
    "exam.attempt.update-status.v1"]
to_status = ["started", "submitted"]

["{REVIEW}"]
keys = ["{REVIEWS_KEY}"]
types = ["exam.attempt.update-status.v1"]
to_status = ["verified"]
"""


@dataclass
class Sent:
    """Publishes to a queue of its own, and remembers what must become of each message."""

    url: str
    queued: int = 0
    outcomes: dict[str, str] = field(default_factory=dict)
    quarantine: list[tuple[str, bytes]] = field(default_factory=list)

    def send(
        self,
        data: CommandData,
        expected: str,
        *,
        source: str = EXAMS,
        command_id: str | None = None,
        signature: str | None = None,
        key: str | None = None,
    ) -> bytes:
        """Publish a command, signed by a key through our publisher, or with any signature."""
        command = Command(source, command_id or f"c{self.queued}", data)
        body = render(command)
        headers = {} if signature is None else {SIGNATURE_HEADER: signature}
        with Publisher(self.url, source=source, signing_key=key) as publisher:
            publisher.publish_raw(body, 0, headers=headers)
        self.expect(body, expected)
        return body

    def expect(self, body: bytes, expected: str) -> None:
        """What must become of a message."""
        self.queued += 1
        if expected in ("bad_signature", "not_allowed"):
            self.quarantine.append((expected, body))
        else:
            self.outcomes[json.loads(body)["id"]] = expected


@pytest.fixture(params=["valkey", "rabbitmq"])
def sent(request: pytest.FixtureRequest) -> Sent:
    sent = Sent(request.getfixturevalue(f"{request.param}_url"))
    with open_source(sent.url, queue_name(0), 10):  # RabbitMQ's queue is declared by whoever consumes
        pass
    return sent


@pytest.fixture
def keys_file(tmp_path: Path) -> Path:
    file = tmp_path / "keys.toml"
    file.write_text(FILE)
    return file


@pytest.fixture
def record(engine: Engine) -> Engine:
    """A database with one shard, which reads whatever queue it is told to."""
    with engine.begin() as connection:
        shards.ensure_shards(connection, 1)
    return engine


def consume(engine: Engine, sent: Sent, keys_file: Path | None) -> None:
    """Consume everything that was sent, and compare."""
    batches = Batches(engine, Handler(Policies(), instructor=True), LEASE_S)
    one = Consumer(
        shard=0,
        owner="me",
        engine=engine,
        batches=batches,
        open_source=lambda: open_source(sent.url, queue_name(0), 10),
        batch_size=10,
        lease_s=LEASE_S,
        trust=load_trust(keys_file),
    )
    with running(one):
        until(lambda: len(outcomes(engine)) + len(quarantine(engine)) >= count(sent))
    assert outcomes(engine) == sent.outcomes
    assert quarantine(engine) == sent.quarantine


def count(sent: Sent) -> int:
    return len(sent.outcomes) + len(sent.quarantine)


def outcomes(engine: Engine) -> dict[str, str]:
    query = "SELECT command_id, outcome FROM inbox JOIN outcomes ON inbox_id = inbox.id"
    with engine.begin() as connection:
        return {row.command_id: row.outcome for row in connection.execute(text(query))}


def quarantine(engine: Engine) -> list[tuple[str, bytes]]:
    query = "SELECT code, body FROM quarantine ORDER BY id"
    with engine.begin() as connection:
        return [(row.code, bytes(row.body)) for row in connection.execute(text(query))]


def status(engine: Engine) -> str:
    with engine.begin() as connection:
        found = connection.scalar(text("SELECT status FROM attempts"))
    assert isinstance(found, str)
    return found


def introduce(sent: Sent) -> None:
    for data in (c.exam("7"), c.learner(), c.create("7")):
        sent.send(data, "applied", key=KEY)


def test_only_who_signs_is_heard_and_only_for_what_they_may(
    sent: Sent, record: Engine, keys_file: Path
) -> None:
    # Given two sources that sign, one of them with a key that is being replaced
    introduce(sent)
    sent.send(c.update("7", "started"), "applied", key=OLDER)
    # When somebody who has no key asks in their name, in every way
    submitted, verified = c.update("7", "submitted"), c.update("7", "verified")
    sent.send(submitted, "bad_signature")
    sent.send(submitted, "bad_signature", key=UNKNOWN)
    good = render(Command(EXAMS, "forged", submitted))
    sent.send(submitted, "bad_signature", command_id="forged", signature=sign(good, KEY)[:-1])
    sent.send(verified, "bad_signature", command_id="forged", signature=sign(good, KEY))
    sent.send(verified, "bad_signature", source="/nobody", key=KEY)
    # and a source in the name of another, or for what it may not
    sent.send(verified, "bad_signature", source=REVIEW, key=KEY)
    sent.send(verified, "not_allowed", key=KEY)
    sent.send(c.update("7", "nonsense"), "not_allowed", key=KEY)
    sent.send(c.remove("7"), "not_allowed", key=KEY)
    consume(record, sent, keys_file)
    # Then nothing of it has changed anything
    assert status(record) == "started"
    # And each source gets what it may ask for
    sent.send(submitted, "applied", command_id="forged", signature=sign(good, KEY))
    sent.send(verified, "applied", source=REVIEW, key=REVIEWS_KEY)
    consume(record, sent, keys_file)
    assert status(record) == "verified"


def test_a_forged_copy_neither_blocks_the_real_one_nor_follows_it(
    sent: Sent, record: Engine, keys_file: Path
) -> None:
    introduce(sent)
    # Given forged copies, with the same and with other data, that come before the real one and after it
    real, other = c.update("7", "submitted"), c.update("7", "started")
    for data in (real, other):
        sent.send(data, "bad_signature", command_id="the one")
    body = sent.send(real, "applied", command_id="the one", key=KEY)
    sent.send(other, "bad_signature", command_id="the one")
    # and the real one, recorded and sent again, which is a duplicate
    sent.send(real, "applied", command_id="the one", signature=sign(body, KEY))
    sent.send(c.learner("43"), "applied", key=KEY)
    # When all are read
    consume(record, sent, keys_file)
    # Then only the real one has happened, once
    assert status(record) == "submitted"
    with record.begin() as connection:
        assert connection.scalar(text("SELECT version FROM attempts")) == 2


def test_publishers_may_sign_before_anybody_asks_for_it(sent: Sent, record: Engine) -> None:
    introduce(sent)
    sent.send(c.update("7", "started"), "applied", key=UNKNOWN)
    sent.send(c.update("7", "submitted"), "applied", signature="anything")
    consume(record, sent, None)


@pytest.mark.parametrize("insist", [True, False])
def test_a_bare_push_is_signed_by_its_envelope(
    valkey_url: str, record: Engine, keys_file: Path, insist: bool
) -> None:
    sent = Sent(valkey_url, 0)
    introduce(sent)
    good = render(Command(EXAMS, "good", c.update("7", "submitted")))
    forged = render(Command(EXAMS, "forged", c.update("7", "started")))
    bare = render(Command(EXAMS, "bare", c.update("7", "started")))
    with Redis.from_url(valkey_url) as client:
        # Given one whose signature is of another body, one without a signature, and a good one
        for body in (forged, good):
            envelope = {"payload": b64encode(body).decode(), "signature": sign(good, KEY)}
            client.lpush(queue_name(0), json.dumps(envelope))
        client.lpush(queue_name(0), bare)
    sent.expect(forged, "bad_signature" if insist else "applied")
    sent.expect(good, "applied")
    sent.expect(bare, "bad_signature" if insist else "rejected")  # what was submitted does not start
    consume(record, sent, keys_file if insist else None)
    # and the quarantine has the signature, for a replay
    query = text("SELECT headers ->> 'invigilator-signature' FROM quarantine ORDER BY id")
    with record.begin() as connection:
        assert list(connection.scalars(query)) == ([sign(good, KEY), None] if insist else [])
