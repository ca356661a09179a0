"""`invigilator status`: what waits, what is owed, who works on it, and whether that is all right."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import click

from events.errors import InvigilatorError
from invigilator.cli.options import JSON
from invigilator.cli.output import one_line, print_document, say, to_json
from worker.threads import begin

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

    from db.backlog import Backlog
    from worker.health.facts import Asking
    from worker.health.judgement import Judgement
    from worker.settings import Settings

T = TypeVar("T")

DEADLINE_S = 10.0
"""Seconds for everything that engines are asked, so that a probe has an answer before it is given up."""
WATCH_EVERY_S = 2.0
NOTHING = {
    "circuits": "every service is called",
    "circuit_details": "no circuit is open",
    "pauses": "no kind is paused",
    "shards": "not known yet; the first `invigilator consume` writes them",
    "resharding": "the number of shards does not change",
    "processes": "no process gives a sign of life; start `consume`, `relay` and the workers",
    "orphan_queues": "every queue of commands belongs to a shard",
    "webhooks": "nobody subscribes by a webhook",
    "feeds": "nobody subscribes by a feed",
}
"""What is said where there is nothing, by the name of the member."""
ONLY_IN_JSON = ("started_at", "doing")


class SilentError(InvigilatorError):
    """An engine does not answer."""

    code = "silent"


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
        _print(_within_deadline(_document), as_json)


def _within_deadline(ask: "Callable[[Asking], T]") -> T:
    """Ask engines. One that hangs is left alone: its thread ends with the process.

    Raises:
        SilentError: an engine has not answered in time.
    """
    from worker.health.facts import Asking

    asking = Asking()
    answer = begin(partial(ask, asking))
    try:
        return answer.result(DEADLINE_S)
    except TimeoutError:
        if answer.done():
            raise
        raise SilentError(f"{asking.engine} does not answer: nothing came within {DEADLINE_S:g} s") from None


def _check(as_json: bool) -> None:
    try:
        judgement = _within_deadline(_judge)
    except SilentError as error:
        judgement = _broken(str(error))
    say(to_json({"status": judgement.status, **asdict(judgement)}) if as_json else one_line(judgement.line))
    raise click.exceptions.Exit(judgement.status)


def _broken(sentence: str) -> "Judgement":
    from worker.health.judgement import Judgement

    return Judgement([sentence])


def _judge(asking: "Asking") -> "Judgement":
    from sqlalchemy.exc import DBAPIError

    from db.compatibility import compare
    from db.errors import brief
    from worker.health.facts import read
    from worker.health.judgement import judge

    try:
        with _open() as (engine, settings):
            with engine.connect() as connection:
                schema = compare(connection)
            return _broken(schema) if schema else judge(read(engine, settings, asking))
    except DBAPIError as error:
        return _broken(f"the database does not serve us: {brief(error)}")
    except InvigilatorError as error:
        return _broken(str(error))


def _watch(as_json: bool) -> None:
    from sqlalchemy.exc import DBAPIError

    from db.errors import brief

    try:
        while True:
            try:
                shown = _within_deadline(_document)
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


def _document(asking: "Asking") -> dict[str, Any]:
    with _open() as (engine, settings):
        return document(engine, settings, asking)


def document(engine: "Engine", settings: "Settings", asking: "Asking") -> dict[str, Any]:
    """Return what `status` prints.

    Parameters:
        engine: of the database.
        settings: with the address of the broker.
        asking: is told which engine is asked.

    Raises:
        sqlalchemy.exc.DBAPIError: the database is away.
        BrokerAwayError: the broker is away.
    """
    from db.connect import reading
    from db.deliveries import PREFIX
    from worker.commands.sources.brokers import orphans
    from worker.health.facts import read, shown, shown_resharding
    from worker.health.judgement import judge

    facts = read(engine, settings, asking)
    assert settings.broker_url is not None
    with asking.the_broker():
        shards = max(one.shard for one in facts.shards) + 1
        unread = orphans(settings.broker_url.get_secret_value(), shards)
    with reading(engine) as connection:
        counts = _counts(connection, facts.backlog)
    return {
        "verdict": judge(facts).sentence,
        "commands": {
            "queued": sum(one.queued for one in facts.shards),
            "quarantined": facts.quarantined,
        },
        **counts,
        "circuits": {one.queue: one.open_until for one in facts.circuits},
        "circuit_details": {
            one.queue: {
                "since": one.since,
                "reason": one.reason,
                "waiting": facts.waiting_for(one.queue),
            }
            for one in facts.circuits
        },
        "pauses": [asdict(one) for one in facts.pauses],
        "shards": [
            {"shard": one.shard, "owner": one.owner, "queued": one.queued, "stalled_s": one.stalled_s}
            for one in facts.shards
        ],
        "resharding": shown_resharding(facts.resharding),
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
    print_document(document, as_json, NOTHING)


def _without(process: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in process.items() if name not in ONLY_IN_JSON}
