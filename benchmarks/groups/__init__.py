"""The groups of the benchmark. Each module defines the contestants of one group, which run in alternation."""

from types import ModuleType

from benchmarks.groups import (
    api,
    commands,
    effects,
    events,
    flat,
    latency,
    memory,
    operators,
    scaling,
    services,
    shards,
    tables,
    whole,
)

ALL: tuple[ModuleType, ...] = (
    commands,
    whole,
    effects,
    events,
    services,
    scaling,
    latency,
    shards,
    flat,
    memory,
    tables,
    api,
    operators,
)
QUICK: tuple[ModuleType, ...] = (commands, whole, latency)
