"""What operators look at, after ten million effects and in the middle of an outage (`benchmarks.bad_day`).

200,000 effects are pending and half of them are tried in vain, 4,000 have failed, the quarantine is full, a feed is
200,000 events behind, and the audit has 100,000 acts. One caller asks `invigilator web` on the same machine for
a page at a time, about learners, exams and effects that chance chooses, and measures until the whole answer has
come.

*status* is the document that `invigilator status` prints, and *status --check* its judgement, both read in this
process; *the command* is the program with its start. The goal for all but the program's start is a p95 of 300 ms.
"""

import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from urllib.parse import quote

import httpx
from sqlalchemy import Engine

from benchmarks import bad_day, ours
from benchmarks.bench import Bench, Contestant, Figures
from benchmarks.engines import Broker
from benchmarks.groups.api import SEED, calling, free_address, timed
from benchmarks.groups.latency import summary
from benchmarks.meter import Meter
from benchmarks.ours import Ours
from benchmarks.running import plain_environment
from db.connect import make_engine
from invigilator.cli.status import document
from invigilator.web.console.rendering import HOME
from invigilator.web.metrics import KEPT_S
from tests.integration.db.filling import ATTEMPTS, Filled
from worker.health.facts import Asking, read
from worker.health.judgement import judge
from worker.settings import Settings

NAME = "operators"
DATABASE = "operators"
ROUNDS = 1
CALLS, WARM_CALLS = 60, 5
SCRAPES = 20
STARTS = 3
PROGRAM = "the command"
BYTES = 30_000_000_000
"""Of disk at scale 1, including the WAL that is written meanwhile."""

Make = Callable[[random.Random, Filled], str]
"""Makes the address of a page or of a call, out of chance and of what there is."""


def _learner(chance: random.Random, filled: Filled) -> int:
    return chance.randrange(filled.learners)


def _code(chance: random.Random, filled: Filled) -> str:
    """The id of an attempt, which is its code."""
    number = f"{chance.randrange(filled.attempts):012x}{0:020x}"
    return "-".join((number[:8], number[8:12], number[12:16], number[16:20], number[20:]))


def _command(chance: random.Random, filled: Filled) -> str:
    return f"a{chance.randrange(filled.attempts)}-{chance.randint(1, 4)}"


def _same(path: str) -> Make:
    return lambda _chance, _filled: path


def _below(place: str, make: Make) -> Make:
    return lambda chance, filled: place + make(chance, filled)


def _of_learner(before: str) -> Make:
    return lambda chance, filled: before + filled.user(_learner(chance, filled))


def _of_course(before: str) -> Make:
    return lambda chance, filled: before + filled.course(_learner(chance, filled))


def _of_exam(before: str) -> Make:
    return lambda chance, filled: before + filled.exam(_learner(chance, filled), chance.randrange(4))


def _of_attempt(before: str) -> Make:
    return lambda chance, filled: before + _code(chance, filled)


def _of_command(before: str) -> Make:
    return lambda chance, filled: before + _command(chance, filled)


def _of_effect(before: str) -> Make:
    # The effects of `filling` have the id of their attempt, with 16 to 25 at the end.
    return lambda chance, filled: before + _code(chance, filled)[:-2] + f"{chance.randint(16, 25):02x}"


def _some(before: str, values: Sequence[str]) -> Make:
    return lambda chance, _filled: before + quote(chance.choice(values))


STATES = ("pending", "running", "done", "failed", "superseded", "cancelled")
KINDS = (
    "set_credit_status",
    "send_status_email",
    "cascade_decline",
    "delete_student_attempt",
    "deliver_event",
)

PAGES: Mapping[str, Make] = {
    "all effects": _same("effects"),
    "effects, the next page": _of_effect("effects?after="),
    **{f"effects, {state}": _same(f"effects?state={state}") for state in STATES},
    **{f"effects, {kind}": _same(f"effects?kind={kind}") for kind in KINDS},
    **{f"effects, failed, {kind}": _same(f"effects?state=failed&kind={kind}") for kind in KINDS},
    "effects of a learner": _of_learner("effects?user_id="),
    "effects of a course": _of_course("effects?course_id="),
    "effects of an exam": _of_exam("effects?exam_id="),
    "effects of an attempt": _of_attempt("effects?attempt="),
    "effects with a cause": _some("effects?cause=", [f"cause{number}" for number in range(bad_day.CAUSES)]),
    "effects whose error contains a text": _same("effects?error=answered%20503"),
    "effects whose error contains what none has": _same("effects?error=teapot"),
    "failed effects whose error contains a text": _same("effects?state=failed&error=503%20to%202"),
    "effects since a time": _same("effects?since=2026-01-01T03:00"),
    "effects until a time": _same("effects?until=2026-09-01T03:00"),
    "effects of a kind until a time": _same("effects?kind=send_status_email&until=2026-09-01T03:00"),
    "effects of a subscriber": _same("effects?subscriber=webhook.acme"),
    "an effect": _of_effect("effect?id="),
    "the causes": _same("causes"),
    "a cause": _some("cause?id=", [f"cause{number}" for number in range(bad_day.CAUSES)]),
    "a learner": _of_learner("learner?user_id="),
    "an attempt": _of_attempt("attempt?code="),
    "attempts of a learner": _of_learner("attempts?user_id="),
    "attempts at an exam": _of_exam("attempts?exam_id="),
    "attempts in a course": _of_course("attempts?course_id="),
    "attempts with a status": _some("attempts?status=", ["verified", "submitted", "started", "rejected"]),
    "the commands": _same("commands"),
    "a command": _of_command("command?source=/lms&id="),
    "the quarantine": _same("quarantine"),
    "the quarantine, the next page": _same("quarantine?after=5000"),
    "the quarantine, one code": _same("quarantine?code=not_json"),
    "the quarantine, a code that none has": _same("quarantine?code=too_large"),
    "the audit": _same("audit"),
    "the audit, the next page": _same("audit?before=50000"),
    "the audit of a learner": _of_learner("audit?user_id="),
    "the audit of an effect": _of_effect("audit?effect_id="),
    "webhooks and feeds": _same("webhooks"),
    "a webhook": _same("webhook?name=acme"),
    "a search for a learner": _of_learner("search?q="),
    "a search for a command": _of_command("search?q="),
    "a search for an effect": _of_effect("search?q="),
    "a search in vain": _same("search?q=nobody"),
    "before all that match are retried": _same("acts/retry?state=failed"),
    "before all that match are cancelled": _same("acts/cancel?state=pending"),
}

CALLS_OF_THE_API: Mapping[str, Make] = {
    "API: effects": _same("effects?limit=500"),
    "API: failed effects": _same("effects?states=failed&limit=500"),
    "API: pending effects of a kind": _same("effects?states=pending&kinds=cascade_decline&limit=500"),
    "API: effects of a learner": _of_learner("effects?user_id="),
    "API: effects with a cause": _same("effects?cause=cause0&limit=500"),
    "API: effects whose error contains what none has": _same("effects?error=teapot&limit=500"),
    "API: the causes": _same("effects/causes"),
}


def why_not(bench: Bench) -> str | None:
    """Return the reason why the group cannot be measured on this machine, or None."""
    needed, free = BYTES * bench.scale, shutil.disk_usage(bench.folder).free
    return f"{free / 1e9:.0f} GB are free, {needed / 1e9:.0f} GB are needed" if free < needed else None


def is_program(contestant: str) -> bool:
    """Return whether the contestant is the program with its start, for which there is no goal."""
    return contestant.startswith(PROGRAM)


def contestants(bench: Bench) -> Sequence[Contestant]:
    """Return the document and the program of `status`, the metrics, and each page of the console."""
    url = _filled(bench)
    filled = Filled(ATTEMPTS * max(1, round(bad_day.YEARS * bench.scale)))
    [first, *_] = bench.brokers
    return [
        *(
            Contestant(f"{name} on {broker.name}", partial(run, bench, broker, url))
            for broker in bench.brokers
            for name, run in {
                "status": _status,
                "status --check": _check,
                PROGRAM: _program,
                "metrics": _metrics,
            }.items()
        ),
        *(
            Contestant(
                f"the overview on {broker.name}", partial(_page, bench, broker, url, filled, _same(HOME))
            )
            for broker in bench.brokers
        ),
        *(
            Contestant(name, partial(_page, bench, first, url, filled, _below(place, make)))
            for place, calls in {HOME: PAGES, "/v1/": CALLS_OF_THE_API}.items()
            for name, make in calls.items()
        ),
    ]


def _filled(bench: Bench) -> str:
    database = bench.engines.database
    url = database.named(DATABASE)
    if not database.exists(DATABASE):
        database.execute(f"CREATE DATABASE {DATABASE}")
        ours.prepare(url)
        bad_day.begin(url, bench.scale, bench.say)
    return url


def _status(_bench: Bench, broker: Broker, url: str) -> Figures:
    return _looked(broker, url, lambda engine, settings: document(engine, settings, Asking()))


def _check(_bench: Bench, broker: Broker, url: str) -> Figures:
    return _looked(broker, url, lambda engine, settings: judge(read(engine, settings)))


def _looked(broker: Broker, url: str, look: Callable[[Engine, Settings], object]) -> Figures:
    settings = Settings(_env_file=None, database_url=url, broker_url=broker.url)
    engine = make_engine(url, application_name="benchmark", writes=False)
    times = _times(lambda: look(engine, settings), CALLS)
    engine.dispose()
    return summary("read", times)


def _program(_bench: Bench, broker: Broker, url: str) -> Figures:
    environment = {
        **plain_environment(),
        "INVIGILATOR_DATABASE_URL": url,
        "INVIGILATOR_BROKER_URL": broker.url,
    }

    def call() -> None:
        program = Path(sys.executable).with_name("invigilator")
        subprocess.run([program, "status"], env=environment, stdout=subprocess.DEVNULL, check=True)

    return summary("read", _times(call, STARTS))


def _times(call: Callable[[], object], number: int) -> Sequence[float]:
    for _ in range(min(WARM_CALLS, number)):
        call()
    return [timed(call) for _ in range(number)]


@contextmanager
def web(bench: Bench, broker: Broker, url: str) -> Iterator[tuple[httpx.Client, Meter]]:
    """Run `invigilator web` on the filled database. Yield a client of it, and a meter of it and PostgreSQL."""
    address = free_address()
    database, settings = bench.engines.database, {"WEB_ADDRESS": address}
    with (
        Ours(database, url, broker, bench.folder, settings, tidies=False) as system,
        calling(system, address) as client,
    ):
        yield client, system.meter()


def _metrics(bench: Bench, broker: Broker, url: str) -> Figures:
    with web(bench, broker, url) as (client, _):

        def scrape() -> None:
            client.get("/metrics").raise_for_status()

        scrape()
        times = []
        for _ in range(SCRAPES):
            time.sleep(KEPT_S)  # an answer is given again for so long
            times.append(timed(scrape))
    return summary("read", times)


def _page(bench: Bench, broker: Broker, url: str, filled: Filled, make: Make) -> Figures:
    with web(bench, broker, url) as (client, meter):
        return looked_at(client, meter, filled, make)


def looked_at(client: httpx.Client, meter: Meter, filled: Filled, make: Make) -> Figures:
    """Return how long a page takes, and what it costs."""
    chance = random.Random(SEED)  # noqa: S311 - no secret

    def look() -> None:
        answer = client.get(make(chance, filled))
        if answer.is_redirect:  # a search that finds one thing leads there
            answer = client.get(answer.headers["Location"])
        answer.raise_for_status()

    for _ in range(WARM_CALLS):
        look()
    before = meter.read()
    times = [timed(look) for _ in range(CALLS)]
    usage = meter.read().since(before)
    return summary("read", times) | usage.figures("call", CALLS)
