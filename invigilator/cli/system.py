"""The system itself: `invigilator up`, `migrate`, `consume`, `relay` and `status`."""

import time
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from invigilator.cli.options import JSON
from invigilator.cli.output import print_document

if TYPE_CHECKING:
    from worker.settings import Settings

LOOKS = 5
BETWEEN_LOOKS_S = 0.04


@click.command("up")
def up() -> None:
    """Run the whole system in the foreground until Ctrl-C."""
    from worker import extras

    extras.need(extras.LOCAL, "`invigilator up`")

    from invigilator.local.up import System
    from worker import logs
    from worker.settings import load

    logs.configure()
    System(load()).run()


@click.command("migrate")
@JSON
def migrate(as_json: bool) -> None:
    """Bring the database to the schema of this release."""
    from db.compatibility import schema_revision
    from db.migrate import upgrade
    from invigilator.cli.database import open_engine
    from worker.engines import resolve
    from worker.settings import load

    settings = resolve(load(), broker=False)
    assert settings.database_url is not None
    upgrade(settings.database_url.get_secret_value())
    with open_engine(settings) as engine, engine.connect() as connection:
        print_document({"revision": schema_revision(connection)}, as_json)


@click.command("consume")
@click.option(
    "--shard",
    type=click.IntRange(min=0),
    multiple=True,
    metavar="N",
    help="Only this shard; may be repeated. Without it: every free one.",
)
def consume(shard: tuple[int, ...]) -> None:
    """Consume commands until SIGTERM: the Procfile's `commands`."""
    from worker import logs, processes
    from worker.engines import resolve
    from worker.settings import load

    logs.configure()
    settings = resolve(load())
    processes.consume(settings, sorted(set(shard)))


@click.command("relay")
def relay() -> None:
    """Offer due effects to the workers until SIGTERM."""
    from worker import logs, processes
    from worker.engines import resolve
    from worker.settings import load

    logs.configure()
    settings = resolve(load())
    processes.relay(settings)


@click.command("status")
@JSON
def status(as_json: bool) -> None:
    """Count what is queued, in quarantine and owed."""
    from db import deliveries, lookups, pauses, subscribers
    from invigilator.cli.database import reading
    from worker.commands.sources.brokers import orphans, queued, read_url_and_entry
    from worker.engines import resolve
    from worker.settings import load

    settings = resolve(load())
    assert settings.broker_url is not None
    with reading(settings) as connection:
        shards = lookups.count_shards(connection) or settings.command_shards
    # Count the queue first, then what consumers have in hand, then what the database has. A command that moves on
    # in between is counted twice, not missed, so a busy system never looks idle.
    url = settings.broker_url.get_secret_value()
    waiting = queued(url, shards)
    _, broker = read_url_and_entry(url)
    if not broker.counts_unacknowledged:
        waiting += _in_hand(settings)
    unread = [asdict(orphan) for orphan in orphans(url, shards)]
    with reading(settings) as connection:
        effects = lookups.count_effects(connection)
        document = {
            "commands": {"queued": waiting, "quarantined": lookups.count_quarantined(connection)},
            "quarantine_discarded": lookups.count_discarded(connection),
            "effects": effects,
            "oldest_pending_s": lookups.oldest_pending_s(connection),
            "circuits": lookups.open_circuits(connection),
            "pauses": [asdict(one) for one in pauses.current(connection)],
            "orphan_queues": unread,
            "feeds": {
                one.name: {
                    "behind": one.behind,
                    "since": one.failing_since,
                    "reason": one.reason,
                    "skipped": one.skipped,
                }
                for one in subscribers.standings(connection)
                if not one.name.startswith(deliveries.PREFIX)
            },
            "webhooks": {
                one.name.removeprefix(deliveries.PREFIX): {"off_since": one.off_since, "reason": one.reason}
                for one in deliveries.endpoints(connection)
            },
        }
    print_document(document, as_json)


def _in_hand(settings: "Settings") -> int:
    """How many commands consumers have taken and not acknowledged, as far as the database tells.

    The database does not show a command before its transaction begins, or between two batches. Both take a few
    milliseconds, so this looks several times and takes the greatest number. RabbitMQ may send up to two batches
    ahead; those are counted when their turn comes.
    """
    from db import shards
    from invigilator.cli.database import reading

    most: dict[int, int] = {}
    with reading(settings) as connection:
        for _ in range(LOOKS):
            time.sleep(BETWEEN_LOOKS_S)
            for shard, messages in shards.in_hand(connection).items():
                most[shard] = max(messages, most.get(shard, 0))
    return sum(most.values())
