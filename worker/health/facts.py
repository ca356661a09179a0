"""What there is to know about the health of the system: of the processes, and of what waits for them."""

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from sqlalchemy import Engine

from db import backlog, deliveries, lookups, partitions, processes, resharding, shards, waiting
from db.backlog import Backlog
from db.connect import reading
from db.deliveries import Endpoint
from db.pauses import Pause, current
from db.processes import ProcessState, Seen
from db.resharding import Resharding
from db.waiting import OpenCircuit, ShardRow
from events.sharding import queue_name
from worker.commands.sources.base import Depth
from worker.commands.sources.brokers import depths, read_url_and_entry
from worker.heartbeat import missing_after_s
from worker.kinds import QUEUES
from worker.settings import Settings

LOOKS = 5
BETWEEN_LOOKS_S = 0.015


@dataclass(frozen=True, slots=True)
class Shard:
    """A shard, and what waits in its queue.

    Parameters:
        queued: how many commands wait there, or are taken and not acknowledged.
        may_be_held: whether a consumer may hold commands of which the broker does not tell.
        progressed_ago_s: seconds since it was last seen to be served. None where it never was.
    """

    shard: int
    queue: str
    owner: str | None
    queued: int
    may_be_held: bool
    progressed_ago_s: float | None

    @property
    def stalled_s(self) -> float | None:
        """Seconds since it last made progress while something waited. None where it never made any."""
        return self.progressed_ago_s if self.queued else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What was read.

    Parameters:
        processes: those that have not left and are not forgotten.
        silence_s: seconds of silence after which a process is missing.
        shards: by number.
        due: the queues of the effects that could run now.
        has_unnumbered_events: whether events wait for their positions.
        backlog: the effects that are not finished, by kind.
        quarantined: how many messages are in quarantine.
        circuits: the open ones.
        pauses: those that are on.
        endpoints: the webhooks.
        resharding: the change of the number of shards that is under way.
        lacking: the partitions of the next period that are missing where tables are divided.
    """

    processes: Sequence[Seen] = ()
    silence_s: float = 15.0
    shards: Sequence[Shard] = ()
    due: Sequence[str] = ()
    has_unnumbered_events: bool = False
    backlog: Mapping[str, Backlog] = field(default_factory=dict)
    quarantined: int = 0
    circuits: Sequence[OpenCircuit] = ()
    pauses: Sequence[Pause] = ()
    endpoints: Sequence[Endpoint] = ()
    resharding: Resharding | None = None
    lacking: Sequence[str] = ()

    @property
    def failed(self) -> int:
        """How many effects have failed for good."""
        return sum(one.failed for one in self.backlog.values())

    def waiting_for(self, queue: str) -> int:
        """Return how many effects wait for the service behind a queue, or for a webhook."""
        webhooks = {one.name: one.pending for one in self.endpoints}
        kinds = (one.pending for kind, one in self.backlog.items() if QUEUES.get(kind) == queue)
        return webhooks.get(queue, sum(kinds))

    def state(self, process: Seen) -> str:
        """Return the state of a process: what it says of itself, unless it is missing."""
        return ProcessState.MISSING if process.silent_s > self.silence_s else process.state

    def lives(self, process: Seen) -> bool:
        """Return whether a process can be counted on."""
        return self.state(process) not in (ProcessState.MISSING, ProcessState.STUCK)


class Asking:
    """Which engine is being asked. Another thread, which waits for the answer, may look at it."""

    engine = "the database"

    @contextmanager
    def the_broker(self) -> Iterator[None]:
        """The broker is asked now, and afterwards the database again."""
        self.engine = "the broker"
        try:
            yield
        finally:
            self.engine = Asking.engine


def read(engine: Engine, settings: Settings, asking: Asking | None = None) -> Facts:
    """Read everything.

    Parameters:
        engine: of the database; a standby is good enough.
        settings: of this process, with the address of the broker.
        asking: is told which engine is asked.

    Raises:
        sqlalchemy.exc.DBAPIError: the database is away, or does not have our tables.
        BrokerAwayError: the broker is away.
        ConfigurationError: the broker cannot be ours.
    """
    assert settings.broker_url is not None
    # The queues are counted first, then what consumers have in hand, then what the database has. A command that
    # moves on in between is counted twice, not missed, so a busy system never looks idle.
    url = settings.broker_url.get_secret_value()
    shards = _shards(engine, url, settings.command_shards, asking or Asking())
    return replace(of_database(engine, settings), shards=shards)


def of_database(engine: Engine, settings: Settings) -> Facts:
    """Read what the database knows, and so nothing of what waits in the queues. Otherwise as `read`."""
    with reading(engine) as connection:
        owed = backlog.by_kind(connection)
        return Facts(
            processes=processes.seen(connection),
            silence_s=missing_after_s(settings.heartbeat_s),
            due=sorted({QUEUES[kind] for kind in waiting.due(connection, list(QUEUES))}),
            has_unnumbered_events=waiting.has_unnumbered_events(connection),
            backlog=owed,
            quarantined=lookups.count_quarantined(connection),
            circuits=waiting.open_circuits(connection),
            pauses=current(connection),
            endpoints=deliveries.endpoints(connection),
            resharding=resharding.read(connection).resharding,
            lacking=partitions.lacking(connection),
        )


def _shards(engine: Engine, broker_url: str, command_shards: int, asking: Asking) -> list[Shard]:
    with reading(engine) as connection:
        rows = waiting.shard_rows(connection) or [ShardRow(n, None, None) for n in range(command_shards)]
    _, broker = read_url_and_entry(broker_url)
    with asking.the_broker():
        counted = depths(broker_url, [queue_name(row.shard) for row in rows])
    consumed = {row.shard for row, depth in zip(rows, counted, strict=True) if depth.consumers}
    held = {} if broker.counts_unacknowledged else in_hand(engine, consumed)
    return [_shard(row, depth, held) for row, depth in zip(rows, counted, strict=True)]


def _shard(row: ShardRow, depth: Depth, held: Mapping[int, int]) -> Shard:
    return Shard(
        shard=row.shard,
        queue=depth.queue,
        owner=row.owner,
        queued=depth.messages + held.get(row.shard, 0),
        may_be_held=bool(depth.consumers),
        progressed_ago_s=row.progressed_ago_s,
    )


def in_hand(engine: Engine, consumed: Collection[int]) -> dict[int, int]:
    """How many commands consumers have taken and not acknowledged, by shard, as far as the database tells.

    The database does not show a command before its transaction begins, or between two batches. Both take a few
    milliseconds, so this looks several times, until it has seen a batch of each shard that has a consumer. RabbitMQ
    may send up to two batches ahead; those are counted when their turn comes.

    Parameters:
        consumed: the shards whose queues have a consumer. Of the others RabbitMQ has every command in the queue.
    """
    most: dict[int, int] = {}
    if not consumed:
        return most
    with reading(engine) as connection:
        for look in range(LOOKS):
            time.sleep(BETWEEN_LOOKS_S if look else 0)
            for shard, messages in shards.in_hand(connection).items():
                most[shard] = max(messages, most.get(shard, 0))
            if most.keys() >= set(consumed):
                break
    return most


def shown_resharding(change: Resharding | None) -> dict[str, Any] | None:
    """Return what is shown of a change of the number of shards; None where none is under way."""
    if change is None:
        return None
    return {
        "from": change.before,
        "to": change.after,
        "for_s": change.begun_ago_s,
        "doing": change.step,
        "waits_for": change.waits_for,
        "left_over": sorted(change.left_over),
    }


def shown(process: Seen, facts: Facts) -> dict[str, Any]:
    """Return what `status` shows of a process."""
    return {
        "role": process.role,
        "host": process.host,
        "pid": process.pid,
        "state": facts.state(process),
        "seen_at": process.seen_at,
        "started_at": process.started_at,
        "doing": process.doing,
    }
