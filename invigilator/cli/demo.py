"""`invigilator demo`."""

import click


@click.command("demo")
@click.option("--keep", is_flag=True, help="Leave the system up afterwards, until Ctrl-C.")
def demo(keep: bool) -> None:
    """Run a sample exam session on the whole system, and check every result."""
    from worker import extras

    extras.need(extras.LOCAL, "`invigilator demo`")

    from rich.console import Console

    from invigilator.demo.run import run_demo
    from worker.settings import load

    if not run_demo(load(), Console(markup=False), keep=keep):
        raise click.exceptions.Exit(1)
