"""Whether full tables matter: 5 million attempts, 20 million transitions, 10 million finished effects.

After these were vacuumed, two million more effects have passed through all of their states, and autovacuum was left
to its defaults.
"""

import shutil
from collections.abc import Sequence
from functools import partial

from benchmarks import ours
from benchmarks.bench import Bench, Contestant
from benchmarks.filling import ATTEMPTS, fill
from benchmarks.groups import commands, whole

NAME = "tables"
DATABASE = "full_tables"
BYTES_PER_ATTEMPT = 8_000
"""Bytes of disk for an attempt and its rows, including the WAL that is written meanwhile."""
LEARNERS = 1000
BATCH = 100


def empty_name(what: str, broker: str) -> str:
    """Return the contestant's name."""
    return f"ours on {broker}, {what}, empty tables"


def full_name(what: str, broker: str) -> str:
    """Return the contestant's name."""
    return f"ours on {broker}, {what}, full tables"


def why_not(bench: Bench) -> str | None:
    """Return the reason why the group cannot be measured on this machine, or None."""
    needed, free = ATTEMPTS * bench.scale * BYTES_PER_ATTEMPT, shutil.disk_usage(bench.folder).free
    if free < needed:
        return f"{free / 1e9:.0f} GB are free, {needed / 1e9:.0f} GB are needed"
    return None


def contestants(bench: Bench) -> Sequence[Contestant]:
    """Return the commands stage and the whole system with empty and with full tables, on each broker."""
    url = filled(bench)
    found = []
    for broker in bench.brokers:
        drain = partial(commands.drain, bench, broker, LEARNERS, commands.warm_commands(BATCH))
        work = partial(whole.measure, bench, broker, {})
        found += [
            Contestant(empty_name("commands", broker.name), drain),
            Contestant(full_name("commands", broker.name), partial(drain, database_url=url)),
            Contestant(empty_name("whole", broker.name), work),
            Contestant(full_name("whole", broker.name), partial(work, database_url=url)),
        ]
    return found


def filled(bench: Bench) -> str:
    """Return the URL of the database that is full. The first call fills it, which takes a quarter of an hour."""
    database = bench.engines.database
    url = database.named(DATABASE)
    if not database.exists(DATABASE):
        database.execute(f"CREATE DATABASE {DATABASE}")
        ours.prepare(url)
        fill(url, round(ATTEMPTS * bench.scale), bench.say)
    return url
