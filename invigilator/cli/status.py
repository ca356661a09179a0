"""`invigilator status`: what waits, what is owed, who works on it, and whether that is all right."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from invigilator.cli.options import JSON
from invigilator.cli.output import one_line, print_document, say, to_json

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

    from db.backlog import Backlog
    from worker.health.judgement import Judgement
    from worker.settings import Settings

WATCH_EVERY_S = 2.0
ONLY_IN_JSON = ("started_at", "doing")


@click.command("status")
@click.option(
    "--check", is_flag=True, help="One line; exit status 2: not working, 1: needs somebody, 0: neither."
)
@click.option("--watch", is_flag=True, help="Again and again, until Ctrl-C.")
@JSON
def status(check: bool, watch: bool, as_json: bool) -> None:
    """Count what is queued, in quarantine and owed, and say who works on it."""
    if check and watch:
        raise click.UsageError("--check and --watch do not go together")
    if check:
        _check(as_json)
    elif watch:
        _watch(as_json)
    else:
        _print(_document(), as_json)


def _check(as_json: bool) -> None:
    judgement = _judge()
    say(to_json({"status": judgement.status, **asdict(judgement)}) if as_json else one_line(judgement.line))
    raise click.exceptions.Exit(judgement.status)


def _judge() -> "Judgement":
    from sqlalchemy.exc import DBAPIError

    from db.compatibility import compare
    from db.errors import brief
    from events.errors import InvigilatorError
    from worker.health.facts import read
    from worker.health.judgement import Judgement, judge

    try:
        with _open() as (engine, settings):
            with engine.connect() as connection:
                schema = compare(connection)
            return Judgement([schema]) if schema else judge(read(engine, settings))
    except DBAPIError as error:
        return Judgement([f"the database does not serve us: {brief(error)}"])
    except InvigilatorError as error:
        return Judgement([str(error)])


def _watch(as_json: bool) -> None:
    from sqlalchemy.exc import DBAPIError

    from db.errors import brief
    from events.errors import InvigilatorError

    try:
        while True:
            try:
                shown = _document()
            except (DBAPIError, InvigilatorError) as error:
                shown = {"error": brief(error)}
            if not as_json:
                click.clear()
            _print(shown, as_json)
            time.sleep(WATCH_EVERY_S)
    except KeyboardInterrupt:
        return


@contextmanager
def _open() -> Iterator[tuple["Engine", "Settings"]]:
    from invigilator.cli.database import open_engine
    from worker.engines import resolve
    from worker.settings import load

    settings = resolve(load())
    with open_engine(settings, writes=False) as engine:
        yield engine, settings


def _document() -> dict[str, Any]:
    with _open() as (engine, settings):
        return document(engine, settings)


def document(engine: "Engine", settings: "Settings") -> dict[str, Any]:
    """Return what `status` prints.

    Parameters:
        engine: of the database.
        settings: with the address of the broker.

    Raises:
        sqlalchemy.exc.DBAPIError: the database is away.
        BrokerAwayError: the broker is away.
    """
    from db.connect import reading
    from db.deliveries import PREFIX
    from worker.commands.sources.brokers import orphans
    from worker.health.facts import read, shown

    facts = read(engine, settings)
    assert settings.broker_url is not None
    unread = orphans(settings.broker_url.get_secret_value(), len(facts.shards))
    with reading(engine) as connection:
        counts = _counts(connection, facts.backlog)
    return {
        "commands": {
            "queued": sum(one.queued for one in facts.shards),
            "quarantined": facts.quarantined,
        },
        **counts,
        "circuits": {one.queue: one.open_until for one in facts.circuits},
        "circuit_details": {one.queue: {"since": one.since, "reason": one.reason} for one in facts.circuits},
        "pauses": [asdict(one) for one in facts.pauses],
        "shards": [
            {"shard": one.shard, "owner": one.owner, "queued": one.queued, "stalled_s": one.stalled_s}
            for one in facts.shards
        ],
        "processes": [shown(one, facts) for one in facts.processes],
        "orphan_queues": [asdict(one) for one in unread],
        "webhooks": {
            one.name.removeprefix(PREFIX): {"off_since": one.off_since, "reason": one.reason}
            for one in facts.endpoints
        },
    }


def _counts(connection: "Connection", owed: Mapping[str, "Backlog"]) -> dict[str, Any]:
    from db import backlog, deliveries, lookups

    ages = [one.oldest_s for one in owed.values() if one.oldest_s is not None]
    return {
        "quarantine_discarded": lookups.count_discarded(connection),
        "effects": backlog.by_state(connection, owed),
        "oldest_pending_s": max(ages, default=None),
        "feeds": {
            one.name: {
                "behind": one.behind,
                "since": one.failing_since,
                "reason": one.reason,
                "skipped": one.skipped,
            }
            for one in deliveries.feeds(connection)
        },
    }


def _print(document: Mapping[str, Any], as_json: bool) -> None:
    if not as_json and "processes" in document:
        # Of each process a line.
        document = {**document, "processes": [_without(one) for one in document["processes"]]}
    print_document(document, as_json)


def _without(process: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in process.items() if name not in ONLY_IN_JSON}
