"""What the facts mean: whether the system works, and what needs a person."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC
from enum import IntEnum

from worker.health.facts import Facts, Shard
from worker.heartbeat import RELAY

OPEN_FOR_S = 300.0
"""Seconds after which an open circuit needs a person: most services are back by then."""


class Status(IntEnum):
    """How the system is; the exit status of `invigilator status --check`."""

    WORKING = 0
    NEEDS_SOMEBODY = 1
    NOT_WORKING = 2


@dataclass(frozen=True, slots=True)
class Judgement:
    """What does not work, and what needs a person. Each is a sentence without an end."""

    broken: Sequence[str] = ()
    needs: Sequence[str] = ()

    @property
    def status(self) -> Status:
        """The worst of it."""
        if self.broken:
            return Status.NOT_WORKING
        return Status.NEEDS_SOMEBODY if self.needs else Status.WORKING

    @property
    def line(self) -> str:
        """All of it in one line."""
        parts = [
            f"{what}: {', '.join(sentences)}"
            for what, sentences in (("not working", self.broken), ("needs somebody", self.needs))
            if sentences
        ]
        return "; ".join(parts) or "working"


def judge(facts: Facts) -> Judgement:
    """Judge facts.

    Example:
        >>> judge(Facts(quarantined=2)).line
        'needs somebody: 2 message(s) in quarantine'
    """
    return Judgement(tuple(_broken(facts)), tuple(_needs(facts)))


def _broken(facts: Facts) -> Iterator[str]:
    living = [one for one in facts.processes if facts.lives(one)]
    read = frozenset[str]().union(*(one.queues for one in living))
    for shard in facts.shards:
        yield from _broken_shard(shard, shard.queue in read, facts.silence_s)
    for queue in facts.due:
        if queue not in read:
            yield f"nobody reads {queue} and effects are due"
    if not any(one.role == RELAY for one in living):
        if facts.due:
            yield "no relay lives and effects are due"
        if facts.has_unnumbered_events:
            yield "no relay lives and events wait"


def _broken_shard(shard: Shard, is_read: bool, silence_s: float) -> Iterator[str]:
    if not is_read:
        if shard.queued:
            yield f"nobody reads {shard.queue} and {shard.queued} command(s) wait"
        elif shard.may_be_held:
            yield f"whoever reads {shard.queue} is stuck or missing and may hold commands"
    elif shard.stalled_s is not None and shard.stalled_s > silence_s:
        yield f"shard {shard.shard} made no progress for {shard.stalled_s:.0f} s and {shard.queued} command(s) wait"


def _needs(facts: Facts) -> Iterator[str]:
    for process in facts.processes:
        if not facts.lives(process):
            yield f"{process.role} on {process.host} (pid {process.pid}) is {facts.state(process)}"
    if facts.failed:
        yield f"{facts.failed} effect(s) failed"
    if facts.quarantined:
        yield f"{facts.quarantined} message(s) in quarantine"
    yield from _held_up(facts)


def _held_up(facts: Facts) -> Iterator[str]:
    for circuit in facts.circuits:
        if circuit.failing_s >= OPEN_FOR_S:
            since = circuit.since.astimezone(UTC)
            yield f"the circuit of {circuit.queue} is open since {since:%Y-%m-%dT%H:%M:%SZ}"
    for pause in facts.pauses:
        if pause.ends_at is None:
            yield f"{pause.kind} is paused without an end"
    for endpoint in facts.endpoints:
        if endpoint.off_since is not None:
            yield f"{endpoint.name} is switched off"
