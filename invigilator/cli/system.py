"""The system itself: `invigilator up`, `migrate`, `consume` and `relay`."""

import click

from invigilator.cli.options import JSON
from invigilator.cli.output import print_document


@click.command("up")
def up() -> None:
    """Run the whole system in the foreground until Ctrl-C."""
    from worker import extras

    extras.need(extras.LOCAL, "`invigilator up`")

    from invigilator.local.up import System
    from worker import logs
    from worker.settings import load

    settings = load()
    logs.configure(settings.log_format or logs.OF_UP, settings.log_level)
    System(settings).run()


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

    settings = resolve(load())
    logs.configure(settings.log_format, settings.log_level)
    processes.consume(settings, sorted(set(shard)))


@click.command("relay")
def relay() -> None:
    """Offer due effects to the workers until SIGTERM."""
    from worker import logs, processes
    from worker.engines import resolve
    from worker.settings import load

    settings = resolve(load())
    logs.configure(settings.log_format, settings.log_level)
    processes.relay(settings)


@click.command("work")
def work() -> None:
    """Do the work of `consume` and of `relay` in one process, until SIGTERM."""
    from worker import logs, processes
    from worker.engines import resolve
    from worker.settings import load

    settings = resolve(load())
    logs.configure(settings.log_format, settings.log_level)
    processes.work(settings)
