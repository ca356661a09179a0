"""The HTTP API with full tables: how long a read takes, and the way from a commit to who waits for it.

One caller, one call at a time, over one connection to `invigilator web` on the same machine, measured from just
before the call until the whole answer has come. Each round has 300 calls of each sort, about learners and exams
that chance chooses. CPU is that of `web` and PostgreSQL.

*A waiting command*: `consume` and `web` run and are idle. The time is from PostgreSQL's timestamp of the commit to
the answer, so it includes the flush of the commit.
"""

import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from uuid import UUID

import httpx

from benchmarks.bench import Bench, Contestant, Figures
from benchmarks.engines import Broker, connect
from benchmarks.filling import ATTEMPTS
from benchmarks.groups import tables
from benchmarks.groups.latency import summary
from benchmarks.ours import Ours
from benchmarks.workload import EXAMS, VERIFIED
from invigilator.local.server import HOST, free_port

NAME = "api"
ROUNDS = 3
CALLS = 300
WARM_CALLS = 30
EVENTS = 100_000
SEED = 7

Query = Mapping[str, str | int]
Make = Callable[[random.Random, int], Query]
"""Makes the query of a call, out of chance and the number of attempts."""

why_not = tables.why_not

_KEEP_EVENTS = """
INSERT INTO subscribers (name, definition) VALUES ('api', '{}') ON CONFLICT DO NOTHING;
INSERT INTO events (id, position, type, time, data)
SELECT gen_random_uuid(), number, 'exam.message.quarantined.v1', now(),
    '{"quarantine_id": null, "code": null, "source": null, "id": null, "size": 1, "count": 1}'
FROM generate_series((SELECT position + 1 FROM event_log), %(events)s) AS number;
UPDATE event_log SET position = greatest(position, %(events)s);
ANALYZE events
"""
_COMMITTED = """
SELECT extract(epoch FROM pg_xact_commit_timestamp(outcomes.xmin))::float8
FROM outcomes JOIN inbox ON inbox.id = inbox_id WHERE command_id = %s
"""


def _attempt(number: int) -> str:
    """Return the id of an attempt of `benchmarks.filling`."""
    return str(UUID(f"{number:012x}{0:020x}"))


def _page(name: str, value: Callable[[int], str]) -> Make:
    def make(chance: random.Random, attempts: int) -> Query:
        number = chance.randrange(attempts)
        # Half of the pages begin in the middle.
        cursor = {"cursor": _attempt(max(0, number - 1))} if chance.random() < 0.5 else {}
        return {name: value(number), "removed": "any", **cursor}

    return make


READS: Mapping[str, tuple[str, Make]] = {
    "an attempt by its code": ("/v1/attempt", lambda chance, n: {"code": _attempt(chance.randrange(n))}),
    "an attempt of a learner at an exam": (
        "/v1/attempt",
        lambda chance, n: {
            "user_id": f"u{(a := chance.randrange(n)) // 4}",
            "exam_id": f"e{a // 80 * 4 + a % 4}",
        },
    ),
    "100 attempts": ("/v1/attempts", _page("limit", lambda _: "100")),
    "100 attempts with a status": ("/v1/attempts", _page("status", lambda _: "verified")),
    "attempts at an exam": ("/v1/attempts", _page("exam_id", lambda a: f"e{a // 80 * 4 + a % 4}")),
    "attempts in a course": ("/v1/attempts", _page("course_id", lambda a: f"c{a // 80}")),
    "attempts of a learner": ("/v1/attempts", _page("user_id", lambda a: f"u{a // 4}")),
    "a status that no attempt has": ("/v1/attempts", lambda *_: {"status": "rejected"}),
    "removed attempts, of which there are none": ("/v1/attempts", lambda *_: {"removed": "true"}),
    "a command": ("/v1/commands", lambda chance, n: {"source": "/lms", "id": f"a{chance.randrange(n)}-1"}),
    "a timeline": ("/v1/timeline", lambda chance, n: {"user_id": f"u{chance.randrange(n) // 4}"}),
    "100 events": ("/v1/events", lambda chance, _: {"after": chance.randrange(EVENTS - 100)}),
}


def contestants(bench: Bench) -> Sequence[Contestant]:
    """Return each sort of reading call, and a command that somebody waits for."""
    url = tables.filled(bench)
    _keep_events(url)
    broker = bench.brokers[0]
    return [
        *(Contestant(name, partial(_read, bench, broker, url, *call)) for name, call in READS.items()),
        Contestant("a waiting command", partial(_wait, bench, broker, url)),
    ]


def _keep_events(url: str) -> None:
    connection = connect(url)
    with connection.cursor() as cursor:
        cursor.execute(_KEEP_EVENTS, {"events": EVENTS})
    connection.close()


@contextmanager
def calling(system: Ours, address: str) -> Iterator[httpx.Client]:
    """Yield a client of `invigilator web`, which is ready."""
    system.start("web")
    with httpx.Client(base_url=f"http://{address}", timeout=60) as client:
        system.wait_until(partial(_is_ready, client), "the API to be ready")
        yield client


def _is_ready(client: httpx.Client) -> bool:
    try:
        return client.get("/readyz").status_code == httpx.codes.OK
    except httpx.TransportError:
        return False


def free_address() -> str:
    return f"{HOST}:{free_port()}"


def _settings(address: str) -> dict[str, object]:
    return {"WEB_ADDRESS": address, "API_RATE": 1_000_000}


def _read(bench: Bench, broker: Broker, url: str, path: str, make: Make) -> Figures:
    address = free_address()
    chance, attempts = random.Random(SEED), round(ATTEMPTS * bench.scale)  # noqa: S311 - no secret
    with bench.ours(broker, 0, _settings(address), url) as system, calling(system, address) as client:

        def call() -> None:
            client.get(path, params=make(chance, attempts)).raise_for_status()

        for _ in range(WARM_CALLS):
            call()
        meter = system.meter()
        before = meter.read()
        times = [timed(call) for _ in range(CALLS)]
        usage = meter.read().since(before)
    return summary("read", times) | usage.figures("call", CALLS)


def timed(call: Callable[[], object]) -> float:
    """Return how many milliseconds a call takes."""
    before = time.perf_counter()
    call()
    return 1000 * (time.perf_counter() - before)


def _wait(bench: Bench, broker: Broker, url: str) -> Figures:
    address = free_address()
    [exam, *_] = EXAMS[VERIFIED]
    number = WARM_CALLS + CALLS
    with bench.ours(broker, number, _settings(address), url) as system, calling(system, address) as client:
        system.start("commands")
        system.wait_until_ready()
        ends = []
        for learner in system.learners:
            event = {"type": "exam.attempt.create.v1", "data": {"exam_id": exam, "user_id": str(learner)}}
            answer = client.post("/v1/commands", json=event, headers={"Prefer": "wait=60"}).raise_for_status()
            ends.append((answer.json()["commands"][0]["id"], time.time()))
        times = [1000 * (end - _committed(system, command_id)) for command_id, end in ends]
    return summary("answer", times[WARM_CALLS:])


def _committed(system: Ours, command_id: str) -> float:
    [[at]] = system.rows(_COMMITTED, command_id)
    return float(at)
