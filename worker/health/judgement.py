"""What the facts mean: whether the system works, and what needs a person."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC
from enum import IntEnum

from db.resharding import Resharding, Step
from worker.health.facts import Facts, Shard
from worker.heartbeat import RELAY

STANDS_STILL_AFTER_S = 60.0
"""Seconds after which a change of the number of shards needs a person, besides those for which it must wait."""
OPEN_FOR_S = 300.0
"""Seconds after which an open circuit needs a person: most services are back by then."""


class Status(IntEnum):
    """How the system is; the exit status of `invigilator status --check`."""

    WORKING = 0
    NEEDS_SOMEBODY = 1
    NOT_WORKING = 2


@dataclass(frozen=True, slots=True)
class Judgement:
    """What is wrong, the worst of each list first. Each member is a sentence without an end.

    Parameters:
        broken: what does not work.
        needs: what needs a person.
        passing: what needs nobody yet, because it may end by itself.
    """

    broken: Sequence[str] = ()
    needs: Sequence[str] = ()
    passing: Sequence[str] = ()

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
            for what, sentences in (
                ("not working", self.broken),
                ("needs somebody", self.needs),
                ("for now", self.passing),
            )
            if sentences
        ]
        return "; ".join(parts if self.status else ["working", *parts])

    @property
    def sentence(self) -> str:
        """What is wrong, the worst of it first.

        Example:
            >>> Judgement(needs=["2 effects failed", "1 message in quarantine"]).sentence
            'It works, and needs somebody: 2 effects failed, and 1 message in quarantine.'
            >>> Judgement().sentence
            'Everything works, and nothing needs anybody.'
        """
        found = [*self.broken, *self.needs, *self.passing]
        if self.broken:
            return f"It does not work: {_listed(found)}."
        if self.needs:
            return f"It works, and needs somebody: {_listed(found)}."
        if self.passing:
            return f"It works, and needs nobody yet: {_listed(found)}."
        return "Everything works, and nothing needs anybody."


def _listed(parts: Sequence[str]) -> str:
    *others, last = parts
    return f"{', '.join(others)}, and {last}" if others else last


def _counted(number: int, thing: str) -> str:
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def _waiting(number: int, thing: str) -> str:
    return f"{_counted(number, thing)} {'waits' if number == 1 else 'wait'}"


def judge(facts: Facts) -> Judgement:
    """Judge facts.

    Example:
        >>> judge(Facts(quarantined=2)).line
        'needs somebody: 2 messages in quarantine'
    """
    changing = list(_resharding(facts.resharding))
    stands_still = facts.resharding is not None and _is_late(facts.resharding)
    return Judgement(
        tuple(_broken(facts)),
        (*_needs(facts), *(changing if stands_still else ())),
        (*_open(facts, 0, OPEN_FOR_S), *(() if stands_still else changing)),
    )


def _is_late(change: Resharding) -> bool:
    return change.begun_ago_s > change.notice_s + change.settle_s + STANDS_STILL_AFTER_S


def _resharding(change: Resharding | None) -> Iterator[str]:
    if change is not None:
        yield f"the number of shards goes from {change.before} to {change.after}: {_WAITS[change.step](change)}"


def _drains(change: Resharding) -> str:
    shards = change.waits_for or sorted(change.left_over)
    return f"waiting for {', '.join(f'shard {shard}' for shard in shards)} to be drained"


_WAITS: Mapping[Step, Callable[[Resharding], str]] = {
    Step.ANNOUNCING: lambda _: "waiting for the owner of shard 0 to tell the broker",
    Step.NOTICE: lambda _: "publishers are told that it will change",
    Step.SWITCHING: lambda _: "waiting for the owner of shard 0 to tell the broker the new number",
    Step.SETTLING: lambda _: "what was published by the old number arrives",
    Step.DRAINING: _drains,
}


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
            yield f"nobody reads {shard.queue} and {_waiting(shard.queued, 'command')}"
        elif shard.may_be_held:
            yield f"whoever reads {shard.queue} is stuck or missing and may hold commands"
    elif shard.stalled_s is not None and shard.stalled_s > silence_s:
        waiting = _waiting(shard.queued, "command")
        yield f"shard {shard.shard} made no progress for {shard.stalled_s:.0f} s and {waiting}"


def _needs(facts: Facts) -> Iterator[str]:
    yield from _open(facts, OPEN_FOR_S, math.inf)
    for process in facts.processes:
        if not facts.lives(process):
            yield f"{process.role} on {process.host} (pid {process.pid}) is {facts.state(process)}"
    if facts.failed:
        yield f"{_counted(facts.failed, 'effect')} failed"
    if facts.quarantined:
        yield f"{_counted(facts.quarantined, 'message')} in quarantine"
    if facts.lacking:
        yield f"there is no partition {', '.join(facts.lacking)} (`invigilator partitions make`)"
    yield from _held_up(facts)


def _open(facts: Facts, at_least_s: float, less_than_s: float) -> Iterator[str]:
    """The circuits of the services that have failed for so long."""
    for one in facts.circuits:
        if at_least_s <= one.failing_s < less_than_s:
            since, waiting = one.since.astimezone(UTC), facts.waiting_for(one.queue)
            why = "; ".join(filter(None, (one.reason, _waiting(waiting, "effect"))))
            yield f"the circuit of {one.queue} is open since {since:%Y-%m-%dT%H:%M:%SZ} ({why})"


def _held_up(facts: Facts) -> Iterator[str]:
    for pause in facts.pauses:
        if pause.ends_at is None:
            yield f"{pause.kind} is paused without an end"
    for endpoint in facts.endpoints:
        if endpoint.off_since is not None:
            yield f"{endpoint.name} is switched off"
