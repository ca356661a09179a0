"""`invigilator doctor`: looks at the configuration and what it leads to."""

from collections.abc import Iterator
from dataclasses import asdict

import click

from invigilator.cli.options import JSON_LINES
from invigilator.cli.output import Row, print_rows
from worker.findings import Finding, Verdict


@click.command("doctor")
@JSON_LINES
def doctor(as_json: bool) -> None:
    """Look at configuration, connections, rights and clocks, and say what to do.

    Nothing is changed. The exit status is 1 if there is a problem.
    """
    found: list[Finding] = []

    def rows() -> Iterator[Row]:
        for finding in _findings():
            found.append(finding)
            yield asdict(finding)

    print_rows(rows(), ("check", "verdict", "detail"), as_json, "checks")
    if any(finding.verdict is Verdict.PROBLEM for finding in found):
        raise click.exceptions.Exit(1)


def _findings() -> "Iterator[Finding]":
    from events.errors import InvigilatorError
    from invigilator.cli.database import open_engine
    from invigilator.doctor import examine
    from worker.engines import resolve
    from worker.settings import load

    try:
        settings = resolve(load())
    except InvigilatorError as error:
        yield Finding("configuration", Verdict.PROBLEM, str(error))
        return
    with open_engine(settings, writes=False) as engine:
        yield from examine(settings, engine)
