"""Replays the committed commands without faults: each comes once, in the order in which they were committed."""

from collections.abc import Iterable
from itertools import groupby
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, update

from db import operators
from db.effects import Wanted, claim
from db.ids import new_receipt
from db.models import Effect
from tests import sample_commands as c
from tests.acceptance.oracle import Record, read_record
from tests.stateful.world import EMPTY, LEASE_S, World
from worker.commands.decoding import Received
from worker.commands.handler import ClaimedCascade
from worker.commands.records import Cause
from worker.kinds import QUEUES, EffectKind


def check_calm(world: World) -> None:
    """Check that the record equals the one of a replay without faults. The database then holds the replay."""
    with world.engine.connect() as connection:
        stormy = read_record(connection)
    world.execute(EMPTY)
    world.subscribe()  # events have ids, too, so without them effects would have others
    calm = _calm_record(world)
    assert stormy.outcomes == calm.outcomes
    assert stormy.histories == calm.histories
    assert stormy.effects == calm.effects


def _calm_record(world: World) -> Record:
    for what, entries in groupby(world.log, key=lambda entry: entry[0]):
        with world.engine.begin() as connection:
            _replay(world, connection, what, [entry for _, entry in entries])
    with world.engine.connect() as connection:
        return read_record(connection)


def _replay(world: World, connection: Connection, what: str, entries: Iterable[Any]) -> None:
    if what == "batch":
        batch: list[Received] = [item for items in entries for item in items]
        c.handle(world.handler, connection, batch)
        return
    for effect_id in entries:
        if what == "done":
            _settle(world, connection, effect_id)
        elif what == "failed":
            connection.execute(update(Effect).where(Effect.id == effect_id).values(state="failed"))
        else:
            change = {"retry": operators.retry, "cancel": operators.cancel}[what]
            assert change(connection, [effect_id]).refused == {}


def _settle(world: World, connection: Connection, effect_id: UUID) -> None:
    kind = EffectKind.CASCADE_DECLINE
    taken = claim(connection, [Wanted(effect_id, kind, QUEUES[kind])], LEASE_S)[effect_id]
    assert taken is not None
    moment = new_receipt()
    cause = Cause(taken.source, taken.command_id, moment.at, moment.at, moment.ids(), effect_id)
    cascade = ClaimedCascade(effect_id, taken.number, kind.entry.read(taken.payload), cause)
    assert world.handler.settle_cascades(connection, [cascade]) == [True]
