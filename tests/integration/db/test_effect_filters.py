"""Pages of the effects whose error contains a text, which no index finds."""

from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Engine, event

from db import effect_filters
from db.effect_filters import Filter, Page
from tests import sample_commands as c
from tests.integration.cli.conftest import Record
from worker.kinds import EffectKind

ERRORS = ("answered 403", "answered 503", "answered 503", "answered 503", "answered 403")
FAILED = Filter(states=("failed",), error="403")


@pytest.fixture
def record(engine: Engine) -> Record:
    record = Record(engine)
    record.handle(c.received(c.course(), "course"), c.received(c.exam("A"), "exam"))
    return record


@pytest.fixture
def effects(record: Record) -> list[UUID]:
    """Five effects, newest first: failed ones, and a pending one at the end."""
    for user in map(str, range(len(ERRORS))):
        record.handle(
            c.received(c.learner(user)),
            c.received(c.create("A", user)),
            c.received(c.update("A", "submitted", user)),
        )
    newest_first = list(reversed(record.effect_ids(EffectKind.SET_CREDIT_STATUS)))
    for effect_id, error in zip(newest_first, ERRORS, strict=True):
        record.set_state(effect_id, "pending" if effect_id == newest_first[-1] else "failed")
        record.execute("UPDATE effects SET last_error = :error WHERE id = :id", error=error, id=effect_id)
    return newest_first


def page(record: Record, wanted: Filter, after: UUID | None = None, limit: int = 3) -> Page:
    with record.engine.connect() as connection:
        return effect_filters.page(connection, wanted, after=after, limit=limit)


def ids(found: Page) -> list[UUID]:
    return [row["id"] for row in found.effects]


def test_they_are_looked_for_in_all_that_fail(record: Record, effects: list[UUID]) -> None:
    found = page(record, Filter(error="403"))
    assert (ids(found), found.next) == ([effects[0], effects[4]], None)
    found = page(record, FAILED)
    assert (ids(found), found.next) == ([effects[0]], None)
    assert ids(page(record, Filter(error="answered 403", kinds=("send_status_email",)))) == []
    assert ids(page(record, Filter(error="4_3"))) == []


def test_a_full_page_goes_on_after_its_last_effect(record: Record, effects: list[UUID]) -> None:
    first = page(record, Filter(error="503"), limit=2)
    assert (ids(first), first.next) == (effects[1:3], effects[2])
    second = page(record, Filter(error="503"), after=first.next, limit=2)
    assert (ids(second), second.next) == ([effects[3]], None)


def test_a_page_ends_before_it_has_looked_at_everything(
    record: Record, effects: list[UUID], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(effect_filters, "LOOKED_AT", 2)
    # The first two: one of them fits
    found = page(record, Filter(error="403"))
    assert (ids(found), found.next) == ([effects[0]], effects[1])
    # The next two: none of them fits
    found = page(record, Filter(error="403"), after=found.next)
    assert (ids(found), found.next) == ([], effects[3])
    # The last one, and the end
    found = page(record, Filter(error="403"), after=found.next)
    assert (ids(found), found.next) == ([effects[4]], None)


def test_the_last_effect_that_is_looked_at_may_fit(
    record: Record, effects: list[UUID], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(effect_filters, "LOOKED_AT", 3)
    found = page(record, Filter(error="503"))
    assert (ids(found), found.next) == (effects[1:3], effects[2])
    found = page(record, Filter(error="503"), limit=1)
    assert (ids(found), found.next) == ([effects[1]], effects[1])


@pytest.mark.parametrize("wanted", [Filter(user_id="1"), Filter(error="403")])
def test_a_page_needs_no_cursor_of_the_server(record: Record, effects: list[UUID], wanted: Filter) -> None:
    # PostgreSQL plans for the first rows of a cursor, so it would look for them among all effects
    names = []

    def note(_connection: Any, cursor: Any, *_: Any) -> None:
        names.append(cursor.name)

    event.listen(record.engine, "before_cursor_execute", note)
    try:
        assert page(record, wanted).effects
    finally:
        event.remove(record.engine, "before_cursor_execute", note)
    assert set(names) == {None}


def test_a_list_is_planned_to_be_read_whole(record: Record, effects: list[UUID]) -> None:
    # For the first rows alone PostgreSQL would look for a learner's effects among all, from the newest on
    with record.engine.begin() as connection:
        assert list(effect_filters.listed(connection, Filter(user_id="1")))
        assert connection.exec_driver_sql("SHOW cursor_tuple_fraction").scalar() == "1"
