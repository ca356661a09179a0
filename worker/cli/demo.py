"""`invigilator demo`."""

from typing import Annotated

import typer


def demo(
    keep: Annotated[
        bool, typer.Option("--keep", help="Leave the system up afterwards, until Ctrl-C.")
    ] = False,
) -> None:
    """Run a sample exam session on the whole system, and check everything that comes of it."""
    from worker import extras

    extras.need(extras.LOCAL, "`invigilator demo`")

    from rich.console import Console

    from worker.demo.run import run_demo
    from worker.settings import load

    if not run_demo(load(), Console(), keep=keep):
        raise typer.Exit(1)
