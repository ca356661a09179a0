"""`python -m tests.chaos`: see `--help`, and docs/reliability.md."""

import argparse
import json
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import get_args

import pytest
from rich.console import Console
from rich.table import Table

from tests.chaos.engines import Broker
from tests.chaos.plan import Cluster
from tests.chaos.storm import RATE, Orders, Report, run

BOTH = "both"
BROKER_OF: Mapping[Cluster, Broker] = {"rabbitmq": "rabbitmq", "sentinel": "redis"}
"""Clusters that are a broker."""
ROW = (
    "seed",
    "minutes",
    "broker",
    "commands",
    "kills",
    "pauses",
    "engine_restarts",
    "duplicates_suppressed",
    "effects",
    "tries",
    "tries_lost",
    "redelivered_tasks",
    "mails",
    "mails_doubled",
    "drain_s",
)
"""The columns of the table in docs/reliability.md."""

console = Console(stderr=True)


def main() -> int:
    """Run the storms that are asked for. Returns the exit status."""
    wanted = _arguments()
    signal.signal(signal.SIGTERM, _stop)  # SystemExit, so that everything is taken away, as after SIGINT
    if wanted.plan:
        for fault in _orders(wanted, BROKER_OF.get(wanted.cluster, "redis")).plan():
            sys.stdout.write(f"{fault.at_s:7.2f} s  {fault.target:12} {fault.what:22} {fault.for_s:5.2f} s\n")
        return 0
    brokers = get_args(Broker) if wanted.broker == BOTH else (wanted.broker,)
    if wanted.cluster in BROKER_OF:
        brokers = (BROKER_OF[wanted.cluster],)
    reports = []
    for broker in brokers:
        try:
            report = run(_orders(wanted, broker), console.print)
        except (pytest.skip.Exception, pytest.fail.Exception) as error:  # what tests do without an engine
            console.print(f"chaos: {error}")
            return 1
        _show(report)
        reports.append(report)
    document = json.dumps([report.document() for report in reports], indent=2) + "\n"
    if wanted.json:
        wanted.json.write_text(document)
    else:
        sys.stdout.write(document)
    return any(report.findings for report in reports)


def _orders(wanted: argparse.Namespace, broker: Broker) -> Orders:
    return Orders(wanted.seed, wanted.minutes, broker, wanted.rate, wanted.cluster, wanted.only)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make chaos", description="A storm, reproducible; then an audit.")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=2)
    parser.add_argument("--broker", choices=(*get_args(Broker), BOTH), default=BOTH)
    parser.add_argument("--rate", type=float, default=RATE, help="commands a second")
    parser.add_argument(
        "--cluster",
        choices=get_args(Cluster),
        help="what is a cluster, or divided; it replaces --broker if it is one",
    )
    parser.add_argument("--only", action="store_true", help="strike no faults but those of the cluster")
    parser.add_argument("--plan", action="store_true", help="print the faults, and strike none")
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="where the figures go; else standard output"
    )
    return parser.parse_args()


def _show(report: Report) -> None:
    document = report.document()
    table = Table(title=f"chaos: {report.orders.line}")
    table.add_column("figure")
    table.add_column("value", justify="right")
    for name, value in {**report.figures, **report.faults}.items():
        table.add_row(name, str(value))
    console.print(table)
    for invariant, offenders in report.findings.items():
        console.print(f"BROKEN: {invariant}", style="bold red", markup=False)
        for offender in offenders:
            console.print(f"  {offender[-3000:]}", markup=False, highlight=False)
    console.print(f"verdict: {document['verdict']}", style="bold red" if report.findings else "bold green")
    if report.kept:
        console.print(f"logs and tables: {report.kept}")
    console.print(f"again: {report.orders.line}")
    console.print(markdown_row([document[name] for name in ROW]), highlight=False, soft_wrap=True)


def _stop(number: int, _frame: object) -> None:
    raise SystemExit(128 + number)


def markdown_row(values: Sequence[object]) -> str:
    """A line of the table in docs/reliability.md."""
    return f"| {' | '.join(str(value) for value in values)} |"


if __name__ == "__main__":
    sys.exit(main())
