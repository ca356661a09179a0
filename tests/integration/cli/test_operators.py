"""What a person may do to effects and to the quarantine."""

import base64
import json
import select
import threading
from collections.abc import Iterator
from typing import Any
from uuid import UUID, uuid4

import pytest
import redis
from sqlalchemy import text

from db import operators, quarantine, shards
from db.wake import EFFECTS_CHANNEL
from events.envelope import CONTENT_TYPE
from events.sharding import queue_name, shard_of
from events.signing import SIGNATURE_HEADER
from invigilator.acts import effects as module
from invigilator.acts.quarantine import MAX_REPLAYED_BYTES
from tests import sample_commands as c
from tests.commandline import CommandLine
from tests.integration.cli.conftest import Record
from worker.kinds import EffectKind

PATIENCE_S = 60


@pytest.fixture
def credits_owed(record: Record) -> list[UUID]:
    """Two effects on one target and one on another, oldest first."""
    record.handle(
        c.received(c.create("A")),
        c.received(c.create("B")),
        c.received(c.update("A", "submitted")),
        c.received(c.update("A", "verified")),
        c.received(c.update("B", "submitted")),
    )
    return list(record.effect_ids(EffectKind.SET_CREDIT_STATUS))


@pytest.mark.parametrize("state", ["failed", "cancelled", "pending"])
def test_a_retry_makes_it_due_now_and_starts_the_period_anew(
    cli: CommandLine, record: Record, credits_owed: list[UUID], state: str
) -> None:
    # Given an effect that is not tried now
    *_, chosen = credits_owed
    record.set_state(chosen, state)
    # When a person retries it, named twice
    ran = cli("effects", "retry", chosen, chosen, "--json")
    # Then it is due
    assert (ran.status, ran.err) == (0, "")
    assert ran.json == {"retried": 1, "refused": []}
    row = record.effect(chosen)
    assert (row.state, row.offered_until, row.retrying_since) == ("pending", None, None)
    with record.engine.begin() as connection:
        assert connection.scalar(
            text("SELECT due_at <= clock_timestamp() FROM effects WHERE id = :id"), {"id": chosen}
        )


@pytest.mark.parametrize("state", ["running", "done", "superseded"])
def test_what_cannot_be_retried_or_cancelled_stays(
    cli: CommandLine, record: Record, credits_owed: list[UUID], state: str
) -> None:
    # Given one that is not a person's to change, and one that is
    _, other, chosen = credits_owed
    record.set_state(chosen, state)
    before = record.effect(chosen)
    unknown = uuid4()
    for verb, done in (("retry", "retried"), ("cancel", "cancelled")):
        # When a person tries
        ran = cli("effects", verb, chosen, other, unknown, "--json")
        # Then the other is changed, and each refusal has its reason
        assert ran.status == 1
        assert ran.json[done] == 1
        reasons = {one["id"]: one["reason"] for one in ran.json["refused"]}
        assert reasons[str(chosen)].startswith(f"is {state}, not ")
        assert reasons[str(unknown)] == "no such effect"
        assert [line.split(": ")[1] for line in ran.err.splitlines()] == [str(chosen), str(unknown)]
        assert record.effect(chosen) == before


def test_an_overtaken_one_is_not_retried(cli: CommandLine, record: Record, credits_owed: list[UUID]) -> None:
    # Given two failed effects on one target
    older, newer, _ = credits_owed
    record.set_state(older, "failed")
    record.set_state(newer, "failed")
    # When both are retried
    ran = cli("effects", "retry", older, newer)
    # Then only the newer one, and it says why
    assert ran.status == 1
    assert ran.out == "retried: 1\n"
    assert ran.err == (
        f"invigilator: {older}: overtaken: {newer} is newer, and on the same target the newest wins\n"
    )
    assert record.effect(older).state == "failed"
    # And once the newer one is cancelled, the older one may go
    assert cli("effects", "cancel", newer).status == 0
    assert cli("effects", "retry", older, "--json").json["retried"] == 1


def test_retrying_all_that_failed(
    cli: CommandLine, record: Record, credits_owed: list[UUID], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given failed ones of two kinds, and transactions of one row
    monkeypatch.setattr(module, "STEP_EFFECTS", 1)
    record.handle(c.received(c.remove("B")))
    _, second, third = credits_owed
    [removal] = record.effect_ids(EffectKind.DELETE_STUDENT_ATTEMPT)
    [credit_removal] = record.effect_ids(EffectKind.REMOVE_CREDIT_STATUS)
    for effect_id in (second, third, removal, credit_removal):
        record.set_state(effect_id, "failed")
    # When one kind is retried
    ran = cli("effects", "retry", "--state", "failed", "--kind", "delete_student_attempt", "--json")
    assert (ran.status, ran.json["retried"]) == (0, 1)
    assert record.effect(removal).state == "pending"
    # And then all: the credit that its removal has overtaken is refused
    ran = cli("effects", "retry", "--state", "failed", "--json")
    assert (ran.status, ran.json["retried"]) == (1, 2)
    assert [one["id"] for one in ran.json["refused"]] == [str(third)]
    # And nothing is left but that
    assert cli("effects", "retry", "--state", "cancelled", "--json").json == {"retried": 0, "refused": []}


def test_cancelling(cli: CommandLine, record: Record, credits_owed: list[UUID]) -> None:
    _, pending, failed = credits_owed
    record.set_state(pending, "pending")
    record.set_state(failed, "failed")
    ran = cli("effects", "cancel", pending, failed)
    assert (ran.status, ran.out, ran.err) == (0, "cancelled: 2\n", "")
    for effect_id in (pending, failed):
        row = record.effect(effect_id)
        assert (row.state, row.offered_until) == ("cancelled", None)
    ran = cli("effects", "cancel", pending)
    assert ran.status == 1
    assert ran.err == f"invigilator: {pending}: is cancelled, not pending or failed\n"


def test_a_retry_wakes_the_relay(cli: CommandLine, record: Record, credits_owed: list[UUID]) -> None:
    connection: Any = record.engine.raw_connection()
    listener = connection.driver_connection
    listener.autocommit = True
    try:
        with listener.cursor() as cursor:
            cursor.execute(f"LISTEN {EFFECTS_CHANNEL}")
        cli("effects", "retry", credits_owed[-1])
        select.select([listener], [], [], PATIENCE_S)
        listener.poll()
        assert listener.notifies
    finally:
        connection.invalidate()


def test_two_people_cancel_and_retry_at_the_same_time(record: Record, credits_owed: list[UUID]) -> None:
    # Given somebody who is cancelling a failed effect
    *_, chosen = credits_owed
    record.set_state(chosen, "failed")
    refused: dict[UUID, str] = {}

    def cancel_too() -> None:
        with record.engine.begin() as connection:
            refused.update(operators.cancel(connection, [chosen]).refused)

    with record.engine.begin() as connection:
        assert operators.cancel(connection, [chosen]).refused == {}
        # When somebody else does the same before that is committed
        other = threading.Thread(target=cancel_too)
        other.start()
    other.join()
    # Then the second waits, sees it, and is told
    assert refused == {chosen: "is cancelled, not pending or failed"}


def test_a_lock_that_is_not_given_back(
    cli: CommandLine, record: Record, credits_owed: list[UUID], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given somebody who holds an effect's row
    monkeypatch.setattr("invigilator.acts.transactions.LOCK_TIMEOUT", "50ms")
    with record.engine.begin() as connection:
        operators.retry(connection, credits_owed)
        # When a person wants it too, then they are not kept waiting
        ran = cli("effects", "cancel", credits_owed[0])
    assert ran.status == 1
    assert "another transaction was in the way; try again" in ran.err
    assert ran.err.count("\n") == 1


# --- quarantine ------------------------------------------------------------------------------------------


@pytest.fixture
def broker(valkey_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[redis.Redis]:
    monkeypatch.setenv("INVIGILATOR_BROKER_URL", valkey_url)
    monkeypatch.setenv("INVIGILATOR_COMMAND_SHARDS", "2")
    with redis.Redis.from_url(valkey_url) as client:
        yield client


def published(client: redis.Redis, shard: int) -> list[tuple[bytes, str]]:
    """Body and content type, oldest first."""
    raw: Any = client.lrange(queue_name(shard), 0, -1)
    envelopes = [json.loads(line) for line in reversed(raw)]
    return [(base64.b64decode(one["body"]), one["content-type"]) for one in envelopes]


def test_replaying(cli: CommandLine, record: Record, broker: redis.Redis) -> None:
    # Given messages of two shards, some of them odd
    record.quarantine(b"{}", {"content-type": "application/json"})
    record.quarantine(b"\xff\x00", {"content-type": "application/x-python-serialize"}, shard=1)
    record.quarantine(b"", {"x": "1"}, shard=1)
    record.quarantine(b"long", {"content-type": "é" * 1000}, shard=1)
    record.quarantine(b"stays", shard=2)
    # When they are replayed, out of order, one twice
    ran = cli("quarantine", "replay", 4, 1, 2, 3, 1, 5, 99, "--json")
    # Then each is in its queue as it came, and no longer in quarantine
    assert published(broker, 0) == [(b"{}", "application/json")]
    assert published(broker, 1) == [
        (b"long", "é" * 127),
        (b"\xff\x00", "application/x-python-serialize"),
        (b"", CONTENT_TYPE),
    ]
    assert [row["id"] for row in cli("quarantine", "list", "--json").lines] == [5]
    # And what could not be is refused
    assert ran.status == 1
    assert ran.json["replayed"] == 4
    assert [one["id"] for one in ran.json["refused"]] == [5, 99]
    assert "shard 2 does not exist any more" in ran.json["refused"][0]["reason"]
    assert ran.json["refused"][1]["reason"] == "no such message"


def test_a_command_is_replayed_to_its_learners_shard(
    cli: CommandLine, record: Record, broker: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given commands of learners of four shards that came on the wrong one, as the database knows better than the
    # settings; the shard of one does not even exist any more
    with record.engine.begin() as connection:
        shards.ensure_shards(connection, 4)
    learners = {shard_of(user, 4): user for user in map(str, range(20))}
    bodies = [c.received(c.learner(learners[shard])).body for shard in range(4)]
    for shard, body in enumerate(bodies):
        record.quarantine(body, shard=(shard + 1) * 2)
    # And one of no learner
    exam = c.received(c.exam("A")).body
    record.quarantine(exam, shard=3)
    # When they are replayed
    assert cli("quarantine", "replay", *range(1, 6), "--json").json == {"replayed": 5, "refused": []}
    # Then each is where its learner's others are, and that one is where it was
    assert [[body for body, _ in published(broker, shard)] for shard in range(4)] == [
        [bodies[0]],
        [bodies[1]],
        [bodies[2]],
        [bodies[3], exam],
    ]


def test_a_signature_is_replayed_with_its_message(
    cli: CommandLine, record: Record, broker: redis.Redis
) -> None:
    # Given a signed message among the headers of others, and one that was never signed
    record.quarantine(b"signed", {SIGNATURE_HEADER: "5ec", "x": "1"})
    record.quarantine(b"unsigned", {"x": "1"})
    # When they are replayed
    cli("quarantine", "replay", 1, 2)
    # Then it has its signature again, and nothing else of theirs
    raw: Any = broker.lrange(queue_name(0), 0, -1)
    newest, oldest = (json.loads(line)["headers"] for line in raw)
    assert oldest == {SIGNATURE_HEADER: "5ec"}
    assert newest == {}


def test_what_is_far_too_large_is_not_replayed(cli: CommandLine, record: Record, broker: redis.Redis) -> None:
    record.quarantine(b"x" * (MAX_REPLAYED_BYTES + 1))
    ran = cli("quarantine", "replay", 1, "--json")
    assert (ran.status, ran.json["replayed"]) == (1, 0)
    assert ran.json["refused"][0]["reason"] == f"{MAX_REPLAYED_BYTES + 1} bytes are no command: discard it"
    assert [row["id"] for row in cli("quarantine", "list", "--json").lines] == [1]


def test_what_the_broker_does_not_take_stays(
    cli: CommandLine, record: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a broker that is away
    monkeypatch.setenv("INVIGILATOR_BROKER_URL", "redis://:secret@127.0.0.1:1")
    record.quarantine(b"1")
    record.quarantine(b"2")
    # When messages are replayed
    ran = cli("quarantine", "replay", 1, 2)
    # Then they stay, with the reason
    assert ran.status == 1
    assert ran.out == "replayed: 0\n"
    assert [line.split(": ")[1] for line in ran.err.splitlines()] == ["1", "2"]
    assert "the broker did not take the message" in ran.err
    assert "secret" not in ran.err
    assert len(cli("quarantine", "list", "--json").lines) == 2


def test_two_people_do_not_replay_the_same_twice(record: Record) -> None:
    # Given somebody who replays a message
    record.quarantine(b"1")
    found: list[object] = []

    def replay_too() -> None:
        with record.engine.begin() as connection:
            found.append(quarantine.lock_message(connection, 1))

    with record.engine.begin() as connection:
        assert quarantine.lock_message(connection, 1) is not None
        # When somebody else does so at the same time
        other = threading.Thread(target=replay_too)
        other.start()
        assert quarantine.discard(connection, [1]).keys() == {1}
    other.join()
    # Then there is nothing left for them
    assert found == [None]


def test_discarding(cli: CommandLine, record: Record) -> None:
    record.quarantine(b"1")
    record.quarantine(b"2")
    ran = cli("quarantine", "discard", 2, 2, 7, "--json")
    assert ran.status == 1
    assert ran.json == {"discarded": 1, "refused": [{"id": 7, "reason": "no such message"}]}
    assert ran.err == "invigilator: 7: no such message\n"
    assert [row["id"] for row in cli("quarantine", "list", "--json").lines] == [1]
    assert cli("quarantine", "discard", 1).out == "discarded: 1\n"
