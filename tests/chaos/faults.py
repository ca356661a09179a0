"""Carrying out a plan: one lane for each target, in which its faults follow one another."""

import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from subprocess import CalledProcessError

from kombu.exceptions import OperationalError
from sqlalchemy.exc import DBAPIError

from db.partitions import BusyError
from events.broker_url import BrokerUrl, Kind, read_broker_url
from events.connecting import Connection
from invigilator.demo.reference import HttpServer
from tests.acceptance.harness import Process, Stack
from tests.chaos.engines import Strike, Target
from tests.chaos.listener import SUBSCRIBER, Listener
from tests.chaos.machines import Network
from tests.chaos.otherside import Moods, MoodyEndpoint, MoodyLms, MoodyMailSink
from tests.chaos.periods import Periods
from tests.chaos.plan import PROCESSES, Fault
from worker.commands.sources.redis import make_client
from worker.kinds import QUEUES

HOME = ("webhooks",)
"""Processes that stay on this computer: without TLS a webhook is called on the same machine only."""
ANSWER_S = 5
COMMANDS = b"invigilator.commands."
CANCELLED_AT_ONCE = 5
AGAIN_S = 0.5
WATCH_S = 0.1
LONG_S = 30
"""A command that has taken so long is killed, and begun again."""
PATIENCE_S = 900
"""Whatever else is struck meanwhile, what an operator has begun is finished by then. A machine that is too slow for
the commands finishes some of it only when no more come."""

# Not an older one that may still run on the target: cancelling what is newer would let it pass, as it should.
# And no cascades: while one is cancelled, the learner's next command is decided without it.
_CANCELLABLE = """
SELECT id FROM effects AS one WHERE state = 'pending' AND kind <> 'cascade_decline' AND NOT EXISTS (
    SELECT FROM effects AS older WHERE older.target = one.target AND older.sequence < one.sequence
    AND older.state NOT IN ('done', 'superseded'))
ORDER BY id LIMIT :number
"""
UNSERVED = "does not serve queue"
"""What `consume` says of a queue that has no leader."""
_CHANGING = "SELECT count(*) FROM reshardings WHERE finished_at IS NULL"
_LOG = "SELECT position, id FROM events WHERE position IS NOT NULL ORDER BY position"
_TERMINATE = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"


@dataclass(frozen=True, slots=True)
class Reshardings:
    """How the number of shards is changed, more than once.

    Parameters:
        numbers: one after the other. The last one is that at the beginning.
        notice_s: seconds for which publishers are told before.
        settle_s: seconds in which messages may arrive by the number before.
    """

    numbers: Sequence[int]
    notice_s: float
    settle_s: float


class Slot:
    """One place in the system where a process runs; who ends it starts another."""

    def __init__(self, stack: Stack, name: str, lock: threading.Lock, programs: Path | None = None) -> None:
        self._stack = stack
        self._name = name
        self._programs = programs
        self._lock = lock  # the stack's, which several slots start their processes in
        self.process = self._start()

    def kill(self, for_s: float) -> None:
        """kill -9, and another one after a while."""
        if not self.process.is_running:  # it has ended by itself; the watch says so
            return
        self.process.kill()
        time.sleep(for_s)
        self.process = self._start()

    def pause(self, for_s: float) -> None:
        """SIGSTOP, then SIGCONT."""
        process = self.process
        with suppress(ProcessLookupError):  # as above
            process.pause()
            time.sleep(for_s)
            process.resume()

    def replace(self) -> None:
        """Another one for one that has ended by itself."""
        self.process.ended_by_us = True
        self.process = self._start()

    def _start(self) -> Process:
        with self._lock:
            if self._programs is None:
                return self._stack.start(self._name)
            return self._stack.start_from(self._programs, self._name)


class Storm:
    """Strikes a running system with the faults of a plan, and keeps count.

    Parameters:
        stack: nothing in it is started.
        database, broker: its engines. A wipe, and the end of all sessions, are added to what can be done to them.
        network: of the machines on which the processes run; None for this computer.
        lms, mail, endpoint: its other side.
        listener: listens to its feed.
        reshardings: how the number of shards is changed.
    """

    def __init__(
        self,
        stack: Stack,
        database: Target,
        broker: Target,
        network: Network | None,
        lms: MoodyLms,
        mail: MoodyMailSink,
        endpoint: MoodyEndpoint,
        listener: Listener,
        reshardings: Reshardings,
    ) -> None:
        self.struck: list[tuple[float, float, Fault]] = []
        """When each fault began and was over, in seconds after the start."""
        self.findings: list[str] = []
        self.cancelled: set[str] = set()
        """The ids of the effects that an operator was to cancel, and then to retry."""
        self.failure: BaseException | None = None
        """Why a fault could not be struck, or not be ended: that says nothing about the system."""
        self.replays = 0
        """How often the feed was told again after a wipe."""
        self.began_at = 0.0
        """By the clock on the wall, in seconds."""
        self._stack = stack
        self._listener = listener
        self._reshardings = reshardings
        self._broker = broker
        self._periods = Periods(stack)
        self._findings_lock = threading.Lock()
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        starting = threading.Lock()
        machines = cycle(network.programs if network else [None])
        self._slots = {
            f"{name}.{number}": Slot(stack, name, starting, None if name in HOME else next(machines))
            for name, instances in PROCESSES.items()
            for number in range(instances)
        }
        self._strikes: dict[str, Mapping[str, Strike]] = {
            "database": {**database.strikes, "terminate_sessions": self._terminate_sessions},
            "broker": {**broker.strikes, "wipe": self._wipe},
            "lms": _moods(lms.moods, "slow", "failing", "refusing", "late", "losing_answers")
            | {"away": _away(stack.lms)},
            "mail_server": _moods(mail.moods, "rejecting", "refusing", "hanging_up", "losing_answers"),
            "endpoint": _moods(endpoint.moods, "failing", "late", "losing_answers")
            | {"kill": _away(endpoint)},
            "operator": {"retry_failed": self._retry_failed, "cancel_and_retry": self._cancel_and_retry},
            "shards": {"reshard": self._reshard},
            "tables": {"divide_and_drop": self._divide},
            **({"machine": {"cut": network.cut}} if network else {}),
        }
        for name, slot in self._slots.items():
            self._strikes[name] = {"kill": slot.kill, "pause": slot.pause}

    def begin(self, faults: Sequence[Fault]) -> None:
        """Start the lanes. They end, with everything mended, when their last fault is over.

        No command that was handled before this may come again.
        """
        self._periods.prepare()
        began, self.began_at = time.monotonic(), time.time()
        lanes: defaultdict[str, list[Fault]] = defaultdict(list)
        for fault in faults:
            lanes[fault.target].append(fault)
        for target, lane in lanes.items():
            thread = threading.Thread(target=self._run, args=(lane, began), name=f"lane {target}")
            self._threads.append(thread)
            thread.start()

    def counts(self) -> Counter[str]:
        """How many faults of each kind were struck."""
        return Counter(f"{fault.target.partition('.')[0]} {fault.what}" for _, _, fault in self.struck)

    @property
    def is_raging(self) -> bool:
        return any(thread.is_alive() for thread in self._threads)

    def watch(self) -> None:
        """Note who has ended by itself, and start another."""
        for name, slot in self._slots.items():
            process = slot.process
            if process.has_failed:
                self.find(
                    f"{process.name} ({name}) ended by itself; its last words:\n{process.output()[-3000:]}"
                )
                slot.replace()

    def find(self, finding: str) -> None:
        """Note what should not have happened."""
        with self._findings_lock:
            self.findings.append(finding)

    def stop(self) -> None:
        """Begin no more faults, and wait for those that are going on."""
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self, lane: Sequence[Fault], began: float) -> None:
        for fault in lane:
            if self._stop.wait(max(0, began + fault.at_s - time.monotonic())):
                return
            struck_at = time.monotonic()
            try:
                self._strikes[fault.target][fault.what](fault.for_s)
            except BaseException as error:  # noqa: BLE001 - pytest's skip and fail among them
                self.failure = error
                self._stop.set()
                return
            self.struck.append((round(struck_at - began, 2), round(time.monotonic() - began, 2), fault))

    def _terminate_sessions(self, for_s: float) -> None:
        with suppress(DBAPIError):  # away already
            self._stack.rows(_TERMINATE)

    def _wipe(self, for_s: float) -> None:
        with self._listener.wiping():
            broker = read_broker_url(self._stack.broker_url)
            if broker.kind is Kind.AMQP:
                _delete_queues(broker)
            else:
                _wipe_redis(broker)
        self.tell_again()

    def tell_again(self) -> None:
        """Have the feed told again what a wiped broker has lost. Does nothing while the database is away."""
        try:
            log = [(row.position, str(row.id)) for row in self._stack.rows(_LOG)]
        except DBAPIError:
            return
        missing = self._listener.first_missing(log)
        after = log[-1][0] if missing is None and log else (missing or 1) - 1
        if self.operate("events", "replay", "--to", SUBSCRIBER, "--after", str(after)):
            self.replays += 1
            self._listener.told_again(up_to=log[-1][0] if log else 0)

    def _retry_failed(self, for_s: float) -> None:
        self.operate("effects", "retry", "--state", "failed")

    def _cancel_and_retry(self, for_s: float) -> None:
        try:
            chosen = [str(row.id) for row in self._stack.rows(_CANCELLABLE, number=CANCELLED_AT_ONCE)]
        except DBAPIError:
            return
        if chosen:
            self.cancelled.update(chosen)
            self.operate("effects", "cancel", *chosen)
            time.sleep(for_s)
            self.operate("effects", "retry", *chosen)

    def _reshard(self, for_s: float) -> None:
        for number in self._reshardings.numbers:
            self._set_shards(number)
            time.sleep(for_s)

    def _set_shards(self, number: int) -> None:
        times = self._reshardings
        arguments = ("set", str(number), "--notice", str(times.notice_s), "--settle", str(times.settle_s))
        self._patiently(
            f"the number of shards becomes {number}",
            lambda: self.operate("shards", *arguments, "--no-wait") and self._is_changed(),
        )

    def _is_changed(self) -> bool:
        if self._stack.number(_CHANGING) == 0:
            return True
        # RabbitMQ that is killed within half a second after it has made a queue serves it no more.
        if any(UNSERVED in process.output() for process in self._stack.processes):
            with suppress(CalledProcessError, OperationalError, OSError):  # it is away
                self._broker.mend()
        return False

    def _divide(self, for_s: float) -> None:
        self._killed_after(for_s, "partitions", "begin")
        self._patiently("the tables are divided", lambda: self._killed_after(LONG_S, "partitions", "begin"))
        self._patiently("a period ends", self._periods.end)
        self._patiently("periods are made", lambda: self._killed_after(LONG_S, "partitions", "make"))
        self._patiently("a period is dropped", self._drop)

    def _killed_after(self, for_s: float, *arguments: str) -> bool:
        """As `operate`, but kill -9 when it takes longer."""
        process = self._stack.program("invigilator", *arguments)
        deadline = time.monotonic() + for_s
        while process.is_running and time.monotonic() < deadline:
            time.sleep(WATCH_S)
        if process.is_running:
            process.kill()
            return False
        return self._has_done(arguments, process.wait(), process.output())

    def _drop(self) -> bool:
        # It stays while a delivery of it has failed.
        gone = self._periods.drop(self._listener)
        if not gone:
            self._retry_failed(0)
        return gone

    def _patiently(self, what: str, do: Callable[[], bool | None]) -> None:
        """Do something again while it says False, or the database is away or busy."""
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            with suppress(DBAPIError, BusyError):
                if do() is not False:
                    return
            time.sleep(AGAIN_S)
        self.find(f"given up after {PATIENCE_S} s: {what}")

    def operate(self, *arguments: str) -> bool:
        """Run `invigilator`. Returns whether it has done its work.

        It may fail, because an engine is away, but only with words for a person.
        """
        ended = self._stack.cli(*arguments, check=False)
        return self._has_done(arguments, ended.returncode, ended.stderr)

    def _has_done(self, arguments: Sequence[str], status: int, said: str) -> bool:
        if "please report it" in said or "Traceback" in said or status not in (0, 1):
            self.find(f"invigilator {' '.join(arguments)}: exit {status}: {said[-2000:]}")
        return status == 0


def _away(server: HttpServer) -> Strike:
    def strike(for_s: float) -> None:
        server.stop()  # it hangs up in the middle of a call
        time.sleep(for_s)
        server.start()

    return strike


def _moods(side: Moods, *moods: str) -> dict[str, Strike]:
    def strike(mood: str, for_s: float) -> None:
        side.now = mood
        time.sleep(for_s)
        side.now = None

    return {mood: lambda for_s, mood=mood: strike(mood, for_s) for mood in moods}  # type: ignore[misc]


def _wipe_redis(broker: BrokerUrl) -> None:
    # Everything but the commands: what Celery and kombu keep beside the queues, too.
    with make_client(broker, ANSWER_S) as client:
        keys = [key for key in client.scan_iter() if not key.startswith(COMMANDS)]
        if keys:
            client.delete(*keys)


def _delete_queues(broker: BrokerUrl) -> None:
    with Connection.to(broker, timeout_s=ANSWER_S, transport_options={}) as connection:
        connection.connect()
        for queue in set(QUEUES.values()):
            connection.default_channel.queue_delete(queue)
