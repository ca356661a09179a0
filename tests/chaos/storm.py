"""One chaos run: the whole system under load, a storm, the calm after it, and the audit."""

import json
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest.mock import patch

from events import shard_count
from tests import engines
from tests.acceptance.harness import Stack
from tests.acceptance.lms import TOKEN
from tests.chaos.audit import Audit, figures
from tests.chaos.clusters import Windows, running_pair, running_rabbitmq, running_sentinels
from tests.chaos.delivered import DeliveryAudit
from tests.chaos.engines import Broker, Target, running_broker, running_database
from tests.chaos.faults import Reshardings, Storm
from tests.chaos.listener import BEHIND, Listener, write_subscriptions
from tests.chaos.machines import Network, running_network
from tests.chaos.otherside import MoodyEndpoint, MoodyLms, MoodyMailSink
from tests.chaos.periods import whole
from tests.chaos.plan import ALONE_S, SPACING_S, Cluster, Fault, Kind, kinds_of, plan
from tests.chaos.standstill import standstills
from tests.chaos.told import OVERTAKEN, EventAudit
from tests.chaos.traffic import TIMEOUT_S, Traffic, stream
from worker.commands.sources import BrokerAwayError
from worker.commands.sources.brokers import queued

SHARDS = 4
MORE_SHARDS = 8
"""So many there are for a while, and then as many as before."""
ASK_EVERY_S = 1.0
"""Seconds between two questions of the publisher, so that a change of the number takes less time than a storm."""
NOTICE_S = 2.0
BATCH = 20
RATE = 30
"""Commands a second."""
FAST = 1000
"""The same for what comes before the storm."""
STALLED_S = 120
"""Nothing has changed for so long: it will not settle any more."""
PATIENCE_S = 900
"""Nor will it when it takes so long, whatever changes."""
LONGER = 5
"""How much more there is to publish than the storm should take, because faults take longer. It ends with them."""
WATCH_S = 0.2
LOOK_S = 0.5
SAY_S = 15

_PROGRESS = f"""
SELECT (SELECT count(*) FROM outcomes) AS handled, (SELECT count(*) FROM quarantine) AS quarantined,
       (SELECT count(*) FROM tries) AS tries,
       (SELECT count(*) FROM effects WHERE state IN ('pending', 'running')) AS owed,
       ({BEHIND}) AS untold
"""
# Somebody must decide about these: what a newer effect has overtaken may stay as it is.
_UP_TO_A_PERSON = """
SELECT count(*) FROM effects AS one WHERE state IN ('failed', 'cancelled') AND NOT EXISTS (
    SELECT FROM effects AS newer WHERE newer.target = one.target AND newer.sequence > one.sequence
    AND newer.state <> 'cancelled')
"""


@dataclass(frozen=True, slots=True)
class Orders:
    """What to run. The same orders strike the same faults at the same times, with the same commands."""

    seed: int
    minutes: float
    broker: Broker
    rate: float = RATE
    cluster: Cluster | None = None
    """What is a cluster. It says which broker it is, too, if it is one."""
    only: bool = False
    """Whether no other faults are struck than those of the cluster."""

    @property
    def seconds(self) -> float:
        return self.minutes * 60

    @property
    def line(self) -> str:
        """What reproduces it."""
        rate = "" if self.rate == RATE else f" RATE={self.rate:g}"
        cluster = f" CLUSTER={self.cluster}" if self.cluster else ""
        only = " ONLY=1" if self.only else ""
        return (
            f"make chaos SEED={self.seed} MINUTES={self.minutes:g} BROKER={self.broker}{rate}{cluster}{only}"
        )

    @property
    def kinds(self) -> Sequence[Kind]:
        """The kinds of faults."""
        return kinds_of(self.cluster, only=self.only)

    def plan(self) -> list[Fault]:
        """The faults, in order."""
        return plan(self.seed, self.seconds, self.kinds, ALONE_S if self.only else SPACING_S)

    def reshardings(self) -> Reshardings:
        """How the number of shards changes. A broker that stands still may take a message when it wakes."""
        longest_s = max((kind.longest_s for kind in self.kinds if kind.target == "broker"), default=0)
        return Reshardings((MORE_SHARDS, SHARDS), NOTICE_S, TIMEOUT_S + longest_s + 1)


@dataclass(frozen=True, slots=True)
class Report:
    """What came of a run. `findings` is empty when all is well."""

    orders: Orders
    figures: dict[str, Any]
    faults: dict[str, int]
    findings: dict[str, list[str]]
    kept: Path | None
    """Where the logs are, when there are findings."""

    def document(self) -> dict[str, Any]:
        """For JSON."""
        return {
            **asdict(self.orders),
            "verdict": "failed" if self.findings else "ok",
            "line": self.orders.line,
            **self.figures,
            "faults": self.faults,
            "findings": self.findings,
        }


def run(orders: Orders, say: Callable[[str], None] = lambda _text: None) -> Report:
    """Run it. Leaves no process behind, and no folder unless there are findings.

    Raises whatever keeps a fault from being struck, such as an engine that does not start again.
    """
    with _system(orders) as system:
        return system.run(say)


@contextmanager
def _system(orders: Orders) -> Iterator["_Run"]:
    with ExitStack() as resources:
        folder = Path(resources.enter_context(tempfile.TemporaryDirectory(prefix="invigilator-chaos-")))
        windows = Windows()
        database = resources.enter_context(_database(orders, folder / "postgres"))
        broker = resources.enter_context(_broker(orders, folder / "broker", windows))
        endpoint = resources.enter_context(MoodyEndpoint(orders.seed))
        network = _network(orders, folder, resources)
        reached = network.reached if network else str
        subscriptions = write_subscriptions(folder, f"{endpoint.url}/hooks")
        stack = Stack(
            reached(database.url),
            reached(broker.url),
            COMMAND_SHARDS=SHARDS,
            BATCH_SIZE=BATCH,
            SUBSCRIPTIONS_FILE=subscriptions,
            EFFECT_QUEUES="quorum" if orders.cluster == "rabbitmq" else "classic",
        )
        stack.reading_url = whole(stack.database_url)
        listener = Listener(broker.url, subscriptions)
        listener.bind()
        lms, mail = MoodyLms(TOKEN, orders.seed), MoodyMailSink(orders.seed)
        stack.lms.reference, stack.mail = lms, mail
        resources.enter_context(stack)
        stack.settings |= {"LMS_URL": reached(stack.lms.url), "SMTP_URL": reached(stack.mail.url)}
        traffic = Traffic(broker.url, SHARDS)
        resources.callback(traffic.close)
        resources.enter_context(patch.object(shard_count, "ASK_EVERY_S", ASK_EVERY_S))
        reshardings = orders.reshardings()
        storm = Storm(stack, database, broker, network, lms, mail, endpoint, listener, reshardings)
        resources.callback(storm.stop)
        resources.callback(listener.stop)
        yield _Run(orders, stack, database, storm, traffic, listener, lms, mail, endpoint, windows)


def _network(orders: Orders, folder: Path, resources: ExitStack) -> Network | None:
    if orders.cluster != "machines":
        return None
    return resources.enter_context(running_network(folder, orders.seed))


def _database(orders: Orders, folder: Path) -> AbstractContextManager[Target]:
    return running_pair(folder) if orders.cluster == "postgresql" else running_database(folder)


def _broker(orders: Orders, folder: Path, windows: Windows) -> AbstractContextManager[Target]:
    match orders.cluster:
        case "rabbitmq":
            return running_rabbitmq(orders.seed)
        case "sentinel":
            return running_sentinels(windows)
        case _:
            return running_broker(orders.broker, folder)


@dataclass(slots=True)
class _Run:
    orders: Orders
    stack: Stack
    database: Target
    storm: Storm
    traffic: Traffic
    listener: Listener
    lms: MoodyLms
    mail: MoodyMailSink
    endpoint: MoodyEndpoint
    windows: Windows
    """When the broker may have taken a command that it lost."""

    def run(self, say: Callable[[str], None]) -> Report:
        commands = round(self.orders.rate * self.orders.seconds * LONGER)
        pure = self.orders.cluster == "sentinel"
        first, rest = stream(self.orders.seed, commands, SHARDS, datetime.now(UTC), pure=pure)
        self.traffic.start(first, FAST)
        # Courses and exams go to every shard; what is said about them must not be faster.
        self.stack.wait_until(lambda: self.stack.handled() == len(first), "the introductions")
        # What happened before somebody subscribes is told to nobody.
        self.stack.wait_until(
            lambda: self.stack.number("SELECT count(*) FROM subscribers") == 2, "the subscribers to be stored"
        )
        self.listener.start()
        faults = self.orders.plan()
        say(f"{len(rest)} messages and {len(faults)} faults in {self.orders.seconds:g} s")
        began = time.monotonic()
        self.storm.begin(faults)
        self.traffic.start(rest, self.orders.rate)
        while self.storm.is_raging:
            self.storm.watch()
            time.sleep(WATCH_S)
        if self.storm.failure is not None:
            raise self.storm.failure
        self.traffic.finish()
        calm = time.monotonic()
        say(f"calm after {calm - began:.0f} s; settling")
        settled = self._settle(say)
        drained = time.monotonic()
        say(f"settled after {drained - calm:.0f} s; auditing")
        return self._report(settled, storm_s=calm - began, drain_s=drained - calm)

    def _settle(self, say: Callable[[str], None]) -> bool:
        """Wait until nothing is left to do. False when that will not come."""
        seen: object = None
        changed_at = said_at = time.monotonic()
        give_up_at = changed_at + PATIENCE_S
        while self.traffic.error is None and time.monotonic() < min(changed_at + STALLED_S, give_up_at):
            self.storm.watch()
            busy, progress = self._look()
            if not busy:
                return True
            if progress and progress != seen:
                seen, changed_at = progress, time.monotonic()
            if time.monotonic() - said_at > SAY_S:
                said_at = time.monotonic()
                say(", ".join(f"{name} {number}" for name, number in progress.items()))
            time.sleep(LOOK_S)
        return False

    def _look(self) -> tuple[bool, dict[str, int]]:
        try:
            waiting = queued(self.stack.broker_url, MORE_SHARDS)
        except BrokerAwayError:  # it answers too slowly, having just started
            return True, {}
        [progress] = self.stack.rows(_PROGRESS)
        may_be_lost = sum(moment in self.windows for moment in self.traffic.taken_at.values())
        handled = progress.handled >= len(self.traffic.commands) - may_be_lost
        settled = handled and waiting == progress.owed == progress.untold == 0
        busy = not (self.traffic.is_finished and settled)
        if not busy and self.listener.misses:
            self.storm.tell_again()
            busy = True
        if not busy and self.stack.number(_UP_TO_A_PERSON):
            self.storm.operate("effects", "retry", "--state", "failed")
            self.storm.operate("effects", "retry", "--state", "cancelled")
            busy = True
        return busy, {"waiting": waiting, **progress._mapping}

    def _report(self, settled: bool, *, storm_s: float, drain_s: float) -> Report:
        self.stack.lms.stop()  # and wait for what is still carried out
        self.endpoint.stop()
        self.listener.stop()
        self.listener.take()
        server_url = self.database.one()
        with engines.fresh_database(server_url) as calm_database_url:
            audit = Audit(
                self.stack, self.lms, self.traffic, calm_database_url, self.storm.cancelled, self.windows
            )
            overtaken = sum(one.output().count(OVERTAKEN) for one in self.stack.processes)
            told = EventAudit(self.stack, self.listener, self.storm.counts(), self.storm.replays, overtaken)
            delivered = DeliveryAudit(self.stack, self.endpoint.events, self.storm.cancelled)
            findings = dict(audit.run(told.checks() | delivered.checks()))
        findings |= self._others(settled, drain_s)
        taken_at = list(self.traffic.taken_at.values())
        numbers = {
            **figures(self.stack, self.lms, self.mail, self.traffic),
            "events": self.stack.number("SELECT count(*) FROM events"),
            "events_heard": len(self.listener.arrivals),
            "deliveries": len(self.endpoint.events),
            "deliveries_spoilt": self.endpoint.moods.touched.total(),
            "replays": self.storm.replays,
            "reshardings": self.stack.number("SELECT count(*) FROM reshardings"),
            **_sums(self.storm.counts()),
            "storm_s": round(storm_s),
            "drain_s": round(drain_s, 1),
            "lost_by_the_broker": len(audit.lost),
            "taken_while_it_may_lose": sum(moment in self.windows for moment in taken_at),
        }
        if self.orders.cluster:
            began_at, struck = self.storm.began_at, self.storm.struck
            numbers["standstill_s"] = standstills(self.stack, taken_at, struck, began_at)
        kept = self._keep(findings) if findings else None
        faults = dict(sorted(self.storm.counts().items()))
        return Report(self.orders, numbers, faults, findings, kept)

    def _others(self, settled: bool, drain_s: float) -> dict[str, list[str]]:
        others = {}
        if not settled:
            others["everything settles"] = [f"given up after {drain_s:.0f} s", str(self._look())]
        if self.storm.findings:
            others["no process ends by itself, and no operator sees a traceback"] = self.storm.findings
        if self.traffic.error is not None:
            others["the publisher raises nothing but PublishError"] = [repr(self.traffic.error)]
        return others

    def _keep(self, findings: dict[str, list[str]]) -> Path:
        kept = Path(tempfile.mkdtemp(prefix=f"invigilator-chaos-{self.orders.broker}-{self.orders.seed}-"))
        shutil.copytree(self.stack.folder, kept / "logs")
        (kept / "faults.txt").write_text("\n".join(map(str, sorted(self.storm.struck))))
        (kept / "findings.json").write_text(json.dumps(findings, indent=2, default=str))
        for table in (
            "effects",
            "tries",
            "transitions",
            "attempts",
            "shards",
            "reshardings",
            "quarantine",
            "inbox",
            "outcomes",
            "events",
            "subscribers",
        ):
            rows = self.stack.rows(f"SELECT * FROM {table}")
            lines = [json.dumps(dict(row._mapping), default=str) for row in rows]
            (kept / f"{table}.jsonl").write_text("\n".join(lines))
        heard = [json.dumps({**one.event, "again": one.again}) for one in self.listener.arrivals]
        (kept / "heard.jsonl").write_text("\n".join(heard))
        delivered = [json.dumps(one) for one in self.endpoint.events]
        (kept / "delivered.jsonl").write_text("\n".join(delivered))
        calls = [json.dumps(asdict(call), default=str) for call in self.stack.lms.calls]
        (kept / "lms_calls.jsonl").write_text("\n".join(calls))
        return kept


def _sums(struck: dict[str, int]) -> dict[str, int]:
    """How many faults of the three big kinds."""

    def total(targets: tuple[str, ...], *what: str) -> int:
        return sum(n for key, n in struck.items() if key.startswith(targets) and key.endswith(what))

    processes, engines_ = ("commands ", "relay ", "effects ", "mail ", "webhooks "), ("database ", "broker ")
    return {
        "kills": total(processes, "kill"),
        "pauses": total((*processes, *engines_), "pause"),
        "engine_restarts": total(engines_, "kill", "shut_down_immediately"),
        "faults_struck": sum(struck.values()),
    }
