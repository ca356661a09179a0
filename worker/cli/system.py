"""The system itself: `invigilator up`, `migrate`, `consume`, `relay` and `status`."""

from typing import Annotated

import typer

from worker.cli.output import AsJson, print_document

app = typer.Typer()


@app.command("up")
def up() -> None:
    """Run the whole system in the foreground until Ctrl-C."""
    from worker import logs
    from worker.settings import load
    from worker.system.up import System

    logs.configure()
    System(load()).run()


@app.command("migrate")
def migrate(as_json: AsJson = False) -> None:
    """Bring the database to the current schema."""
    from alembic.util import CommandError

    from db import lookups
    from db.migrate import upgrade
    from worker.cli.database import reading
    from worker.embedded.discovery import resolve
    from worker.errors import ConfigurationError
    from worker.settings import load

    settings = resolve(load(), broker=False)
    assert settings.database_url is not None
    try:
        upgrade(settings.database_url.get_secret_value())
    except CommandError as error:
        raise ConfigurationError(f"{error}: was the database migrated by a newer release?") from None
    with reading(settings) as connection:
        print_document({"revision": lookups.schema_revision(connection)}, as_json)


@app.command("consume")
def consume(
    shard: Annotated[
        list[int] | None,
        typer.Option(
            help="Only this shard; may be repeated. Without it: every free one.", metavar="N", min=0
        ),
    ] = None,
) -> None:
    """Consume commands until SIGTERM: the Procfile's `commands`."""
    from worker import logs, processes
    from worker.embedded.discovery import resolve
    from worker.settings import load

    settings = resolve(load())
    logs.configure()
    processes.consume(settings, sorted(set(shard or ())))


@app.command("relay")
def relay() -> None:
    """Offer due effects to the workers until SIGTERM."""
    from worker import logs, processes
    from worker.embedded.discovery import resolve
    from worker.settings import load

    settings = resolve(load())
    logs.configure()
    processes.relay(settings)


@app.command("status")
def status(as_json: AsJson = False) -> None:
    """Count what is queued, in quarantine and owed."""
    from db import lookups
    from worker.cli.database import reading
    from worker.commands.sources.depth import queued
    from worker.embedded.discovery import resolve
    from worker.settings import load

    settings = resolve(load())
    assert settings.broker_url is not None
    with reading(settings) as connection:
        shards = lookups.count_shards(connection) or settings.command_shards
    # The queue first, and then a new look at the database: what is committed in between is counted twice
    # rather than not at all, so nobody takes a system for idle that is not.
    waiting = queued(settings.broker_url.get_secret_value(), shards)
    with reading(settings) as connection:
        document = {
            "commands": {"queued": waiting, "quarantined": lookups.count_quarantined(connection)},
            "effects": lookups.count_effects(connection),
            "oldest_pending_s": lookups.oldest_pending_s(connection),
        }
    print_document(document, as_json)
