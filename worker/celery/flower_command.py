"""The command `celery flower`: Flower's own, or where Flower is missing, one that says which extra it needs.

Celery finds it by the entry point in pyproject.toml. Without it, Celery would say that there is no such command.
"""

import click

from events.errors import InvigilatorError
from worker import extras


@click.command("flower", context_settings={"ignore_unknown_options": True})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def _refuse(arguments: tuple[str, ...]) -> None:  # noqa: ARG001 - they are Flower's
    try:
        extras.need(extras.FLOWER, "`celery flower`")
    except InvigilatorError as error:
        raise SystemExit(f"invigilator: {error}") from None


if extras.missing(extras.FLOWER):
    command = _refuse
else:
    from flower.command import flower

    command = flower
