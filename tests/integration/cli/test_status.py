"""`invigilator status`: processes, shards, circuits, pauses; `--check` as a probe; `--watch`."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import redis

from db import processes, shards
from db.processes import ProcessState, Sign
from events.sharding import queue_name
from invigilator.cli.status import DEADLINE_S
from tests import sample_commands as c
from tests.commandline import CommandLine
from tests.integration.cli.conftest import Record
from worker import threads
from worker.kinds import QUEUES, EffectKind

MAIL = QUEUES[EffectKind.SEND_STATUS_EMAIL]
SILENCE_S = 15


def execute(record: Record, *statements: str) -> None:
    for one in statements:
        record.execute(one)


def beat(record: Record, role: str, *queues: str, silent_s: float = 0) -> None:
    sign = Sign(uuid4(), role, "host", 7, ProcessState.WORKING, {"queues": list(queues)})
    with record.engine.begin() as connection:
        processes.beat(connection, sign, SILENCE_S)
    record.execute(f"UPDATE processes SET seen_at = now() - interval '{silent_s} s' WHERE id = '{sign.id}'")


@pytest.fixture
def everybody(record: Record) -> Record:
    """A record, and a process of each role that lives."""
    with record.engine.begin() as connection:
        shards.ensure_shards(connection, 1)
    beat(record, "commands", queue_name(0))
    beat(record, "relay")
    beat(record, "effects", *set(QUEUES.values()))
    return record


def check(cli: CommandLine) -> tuple[int, str]:
    ran = cli("status", "--check")
    assert (ran.out.count("\n"), ran.err) == (1, "")
    return ran.status, ran.out.strip()


def test_who_works(cli: CommandLine, everybody: Record, with_valkey: str) -> None:
    beat(everybody, "mail", MAIL, silent_s=16)
    found = cli("status", "--json").json["processes"]
    assert [(one["role"], one["host"], one["pid"], one["state"]) for one in found] == [
        ("commands", "host", 7, "working"),
        ("effects", "host", 7, "working"),
        ("mail", "host", 7, "missing"),
        ("relay", "host", 7, "working"),
    ]
    assert found[2]["doing"] == {"queues": [MAIL]}
    assert found[2]["seen_at"].endswith("Z")
    # And a person can read it
    assert "missing" in cli("status").out


def test_shards_circuits_and_pauses(cli: CommandLine, everybody: Record, with_valkey: str) -> None:
    execute(
        everybody,
        "UPDATE shards SET owner = 'me', lease_until = now(), progressed_at = now() - interval '100 s'",
        "INSERT INTO circuits (queue, failures, since, open_until, reason)"
        f" VALUES ('{MAIL}', 5, now() - interval '10 min', now(), 'SMTP answered 421')",
        "INSERT INTO pauses (id, kind, reason) VALUES (gen_random_uuid(), 'cascade_decline', 'exam board')",
        "INSERT INTO pauses (id, kind, since, ends_at) VALUES"
        " (gen_random_uuid(), 'deliver_event', now() - interval '2 h', now() - interval '1 h')",
    )
    found = cli("status", "--json").json
    assert found["shards"] == [{"shard": 0, "owner": "me", "queued": 0, "stalled_s": 0}]
    [pause] = found["pauses"]
    assert (pause["kind"], pause["ends_at"], pause["reason"]) == ("cascade_decline", None, "exam board")
    assert found["circuit_details"][MAIL]["reason"] == "SMTP answered 421"
    assert found["circuit_details"][MAIL]["waiting"] == 0
    assert found["circuits"].keys() == found["circuit_details"].keys() == {MAIL}
    status, line = check(cli)
    assert status == 1
    assert f"the circuit of {MAIL} is open since" in line
    assert "(SMTP answered 421; 0 effects wait)" in line
    assert found["verdict"].startswith(f"It works, and needs somebody: the circuit of {MAIL} is open since")
    assert "cascade_decline is paused without an end" in line
    # When a command waits that nobody takes
    with redis.Redis.from_url(with_valkey) as client:
        client.lpush(queue_name(0), b"1")
    [shard] = cli("status", "--json").json["shards"]
    assert shard["queued"] == 1
    assert 100 <= shard["stalled_s"] < 200
    status, line = check(cli)
    assert status == 2
    assert line.startswith("not working: shard 0 made no progress for 10")


def test_what_is_not_there_is_said_in_words(cli: CommandLine, everybody: Record, with_valkey: str) -> None:
    execute(everybody, "DELETE FROM processes")
    told = cli("status").out
    assert "processes: no process gives a sign of life" in told
    assert "circuits: every service is called" in told
    assert "none" not in told
    assert "webhooks: nobody subscribes by a webhook" in told


def test_a_system_that_works(cli: CommandLine, everybody: Record, with_valkey: str) -> None:
    assert check(cli) == (0, "working")
    found = cli("status", "--check", "--json").json
    assert found == {"status": 0, "broken": [], "needs": [], "passing": []}


@pytest.mark.parametrize("is_due", [True, False])
def test_effects_that_are_due_want_a_worker_and_a_relay(
    cli: CommandLine, record: Record, with_valkey: str, is_due: bool
) -> None:
    record.handle(c.received(c.create("A")), c.received(c.update("A", "submitted")))
    if not is_due:
        record.execute("UPDATE effects SET due_at = now() + interval '1 h'")
    credit = QUEUES[EffectKind.SET_CREDIT_STATUS]
    broken = f"not working: nobody reads {credit} and effects are due, no relay lives and effects are due"
    assert check(cli) == ((2, broken) if is_due else (0, "working"))
    # A paused kind wants neither
    record.execute(
        "INSERT INTO pauses (id, kind, ends_at)"
        " VALUES (gen_random_uuid(), 'set_credit_status', now() + interval '1 h')"
    )
    assert check(cli) == (0, "working")


def test_an_effect_whose_worker_is_lost_wants_another_one(
    cli: CommandLine, everybody: Record, with_valkey: str
) -> None:
    everybody.handle(c.received(c.create("A")), c.received(c.update("A", "submitted")))
    execute(
        everybody,
        "UPDATE effects SET state = 'running', lease_until = now() - interval '1 s'",
        "DELETE FROM processes WHERE role <> 'relay'",
    )
    status, line = check(cli)
    assert (status, line.partition(" and ")[0]) == (
        2,
        f"not working: nobody reads {QUEUES[EffectKind.SET_CREDIT_STATUS]}",
    )


def test_what_needs_a_person(cli: CommandLine, everybody: Record, with_valkey: str) -> None:
    everybody.quarantine(b"?")
    assert check(cli) == (1, "needs somebody: 1 message in quarantine")


def test_the_database_or_the_broker_is_away(
    cli: CommandLine, everybody: Record, with_valkey: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setenv("INVIGILATOR_BROKER_URL", "redis://me:secret@127.0.0.1:1")
        status, line = check(cli)
        assert (status, line.partition("(")[0]) == (2, "not working: the broker is away ")
        assert "secret" not in line
    monkeypatch.setenv("INVIGILATOR_DATABASE_URL", "postgresql://me:secret@127.0.0.1:1/x")
    status, line = check(cli)
    assert (status, line.partition(":")[0]) == (2, "not working")
    assert "the database does not serve us" in line
    assert "secret" not in line


class Silent:
    """A server that takes what it is sent, and never answers."""

    def __init__(self, listener: socket.socket) -> None:
        self.address = f"127.0.0.1:{listener.getsockname()[1]}"
        self.was_asked = threading.Event()
        self._listener = listener
        self._taken: list[socket.socket] = []

    def run(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:  # the test has ended
                return
            self._taken.append(connection)
            connection.recv(1)
            self.was_asked.set()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        for connection in self._taken:
            connection.close()


@pytest.fixture
def silent() -> Iterator[Silent]:
    with socket.create_server(("127.0.0.1", 0)) as listener, closing(Silent(listener)) as server:
        threading.Thread(target=server.run, daemon=True).start()
        yield server


@dataclass
class UntilAsked:
    """An answer that is waited for until the silent server was asked, instead of until the deadline."""

    answer: Future[Any]
    silent: Silent

    def result(self, timeout: float) -> Any:
        assert timeout == DEADLINE_S
        assert self.silent.was_asked.wait(60)
        raise TimeoutError

    def done(self) -> bool:
        return self.answer.done()


@pytest.mark.parametrize(
    ("setting", "url", "silent_one"),
    [
        ("INVIGILATOR_DATABASE_URL", "postgresql://me:secret@{}/x", "the database"),
        ("INVIGILATOR_BROKER_URL", "redis://me:secret@{}", "the broker"),
        ("INVIGILATOR_BROKER_URL", "amqp://me:secret@{}", "the broker"),
    ],
)
def test_an_engine_that_hangs_is_named_within_one_deadline(
    cli: CommandLine,
    everybody: Record,
    with_valkey: str,
    silent: Silent,
    monkeypatch: pytest.MonkeyPatch,
    setting: str,
    url: str,
    silent_one: str,
) -> None:
    def begin(ask: Callable[[], Any]) -> UntilAsked:
        silent.was_asked.clear()
        return UntilAsked(threads.begin(ask), silent)

    monkeypatch.setenv(setting, url.format(silent.address))
    monkeypatch.setattr("invigilator.cli.status.begin", begin)
    sentence = f"{silent_one} does not answer: nothing came within 10 s"
    assert check(cli) == (2, f"not working: {sentence}")
    ran = cli("status")
    assert (ran.status, ran.out) == (1, "")
    assert sentence in ran.err
    assert "secret" not in ran.err


def test_the_deadline_ends_a_question_that_hangs(
    cli: CommandLine, record: Record, with_valkey: str, silent: Silent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INVIGILATOR_DATABASE_URL", f"postgresql://{silent.address}/x")
    monkeypatch.setattr("invigilator.cli.status.DEADLINE_S", 0.0)
    assert check(cli) == (2, "not working: the database does not answer: nothing came within 0 s")


def test_the_schema_is_wrong(cli: CommandLine, everybody: Record, with_valkey: str) -> None:
    for table in ("invigilator_schema", "alembic_version"):
        everybody.execute(f"UPDATE {table} SET version_num = '0001'")
    status, line = check(cli)
    assert status == 2
    assert "run `invigilator migrate`" in line


def test_nothing_is_configured(cli: CommandLine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("INVIGILATOR_DATABASE_URL", raising=False)
    monkeypatch.delenv("INVIGILATOR_BROKER_URL", raising=False)
    monkeypatch.setenv("INVIGILATOR_DATA_DIR", str(tmp_path))
    status, line = check(cli)
    assert status == 2
    assert line.startswith("not working: no database configured")


def test_it_is_watched_until_ctrl_c(
    cli: CommandLine, everybody: Record, with_valkey: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = 0

    def between(_seconds: float) -> None:
        nonlocal looks
        looks += 1
        if looks == 3:
            raise KeyboardInterrupt
        monkeypatch.setenv("INVIGILATOR_BROKER_URL", with_valkey if looks == 2 else "redis://127.0.0.1:1")

    monkeypatch.setattr(time, "sleep", between)
    ran = cli("status", "--watch", "--json")
    assert (ran.status, ran.err) == (0, "")
    first, away, last = ran.lines
    assert first["shards"] == last["shards"] == [{"shard": 0, "owner": None, "queued": 0, "stalled_s": 0}]
    assert away["error"].startswith("the broker is away")


def test_a_probe_is_not_watched(cli: CommandLine) -> None:
    assert cli("status", "--check", "--watch").status == 2
