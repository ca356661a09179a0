"""The event log over HTTP: pages, patterns, its two ends, and those who wait for what comes next."""

import asyncio
import threading
from datetime import timedelta
from functools import partial
from typing import Any

import httpx
import pytest
from sqlalchemy import Engine

from db import event_log, subscribers
from tests import sample_commands as c
from tests.integration.cli.conftest import Record
from tests.integration.feeds.conftest import news, number, tell
from tests.integration.web.conftest import Api, connections
from tests.loops import running

pytestmark = pytest.mark.usefixtures("kept")

WAIT = {"Prefer": "wait=60"}
FOLLOWERS = 200
WRITERS = 100
EVENTS_OF_A_WRITER = 5
SESSIONS = 50
"""So many of them write at the same time: the server takes 100 sessions in all."""


def sizes(answer: httpx.Response) -> list[int]:
    assert answer.status_code == 200, answer.text
    return [event["data"]["size"] for event in answer.json()["events"]]


def newest(api: Api) -> int:
    with api.engine.connect() as connection:
        return event_log.ends(connection).position


def numbered(api: Api, *events: int) -> None:
    tell(api.engine, *events)
    number(api.engine)


# --- reading ------------------------------------------------------------------------------------------------


def test_an_event_is_a_cloudevent(api: Api, record: Record) -> None:
    # Given a listener at the end of the log
    begin = api.get("/v1/events").json()["next"]
    # When something happens
    record.handle(c.received(c.create("A", attempt_code="a1"), "create"))
    number(api.engine)
    # Then it is told, as in a feed
    page = api.get("/v1/events", after=begin).json()
    [event] = page["events"]
    assert (event["specversion"], event["source"], event["type"]) == (
        "1.0",
        "/invigilator/main",
        "exam.attempt.created.v1",
    )
    assert (event["subject"], event["partitionkey"]) == ("a1", "42")
    assert event["data"]["command"] == {"source": "/tests", "id": "create"}
    assert "traceparent" not in event
    # And its position is where to go on
    assert int(event["sequence"]) == page["next"] == newest(api)


def test_pages_follow_each_other(api: Api) -> None:
    numbered(api, *range(5))
    first = api.get("/v1/events", limit=2)
    second = api.get("/v1/events", limit=2, after=first.json()["next"])
    third = api.get("/v1/events", limit=2, after=second.json()["events"][-1]["sequence"])
    assert [sizes(page) for page in (first, second, third)] == [[0, 1], [2, 3], [4]]
    last = api.get("/v1/events", after=third.json()["next"]).json()
    assert last == {"events": [], "next": third.json()["next"]}


def test_what_is_not_numbered_is_not_told(api: Api) -> None:
    numbered(api, 1)
    tell(api.engine, 2)
    assert sizes(api.get("/v1/events")) == [1]


def test_next_passes_over_what_nobody_asked_for(api: Api, record: Record) -> None:
    numbered(api, *range(4))
    record.handle(c.received(c.create("A"), "create"))
    number(api.engine)
    created = api.get("/v1/events", types="exam.attempt.*").json()
    assert [event["type"] for event in created["events"]] == ["exam.attempt.created.v1"]
    assert api.get("/v1/events", types="exam.effect.*").json() == {"events": [], "next": newest(api)}


def test_several_types_may_be_asked_for(api: Api, record: Record) -> None:
    numbered(api, 1)
    record.handle(c.received(c.create("A"), "create"), c.received(c.update("A", "banana"), "no"))
    number(api.engine)
    query = [("types", "exam.attempt.*"), ("types", "exam.message.*")]
    answer = api.call("GET", "/v1/events", params=query)
    assert [event["type"] for event in answer.json()["events"]] == [
        "exam.message.quarantined.v1",
        "exam.attempt.created.v1",
    ]


def test_a_page_of_some_types_has_a_limit_too(api: Api) -> None:
    numbered(api, *range(4))
    first = api.get("/v1/events", types="exam.message.*", limit=3)
    assert sizes(first) == [0, 1, 2]
    assert sizes(api.get("/v1/events", types="exam.message.*", after=first.json()["next"])) == [3]


@pytest.mark.parametrize(
    "query",
    [
        {"after": -1},
        {"after": 2**63},
        {"after": "x"},
        {"limit": 501},
        {"types": "banana"},
        {"types": "exam.attempt.*,exam.effect.*"},
        {"types": "*" * 256},
    ],
)
def test_a_wrong_parameter_is_named(api: Api, query: dict[str, Any]) -> None:
    problem = api.get("/v1/events", **query).json()
    assert (problem["status"], problem["code"]) == (400, "invalid_query")


# --- the two ends -------------------------------------------------------------------------------------------


def test_a_position_that_is_not_kept_is_gone(api: Api) -> None:
    # Given a log whose beginning is no longer kept
    numbered(api, 1, 2)
    with api.engine.begin() as connection:
        event_log.prune(connection, timedelta(0))
    pruned_to = newest(api)
    numbered(api, 3)
    # When somebody asks for what came before, or beyond the end
    for after in (pruned_to - 1, newest(api) + 1):
        answer = api.get("/v1/events", WAIT, after=after)
        # Then they are told both ends
        problem = answer.json()
        assert (answer.status_code, problem["code"]) == (410, "position_gone")
        assert (problem["oldest"], problem["newest"]) == (pruned_to, newest(api))
    # And reading on from the oldest end, or from nowhere, gives all that is kept
    assert sizes(api.get("/v1/events", after=pruned_to)) == [3]
    assert sizes(api.get("/v1/events")) == [3]
    assert sizes(api.get("/v1/events", after=newest(api))) == []


def test_a_log_that_is_not_kept_for_the_api_is_off(api: Api) -> None:
    with api.engine.begin() as connection:
        subscribers.store(connection, {"feed.lms": {}})
    answer = api.get("/v1/events", WAIT)
    assert (answer.status_code, answer.json()["code"]) == (404, "events_off")


# --- waiting ------------------------------------------------------------------------------------------------


async def joined(api: Api, followers: int) -> None:
    while len(api.followers) < followers:
        await asyncio.sleep(0.01)


def test_many_follow_without_threads_and_connections(api: Api, record: Record) -> None:
    async def calls() -> tuple[int, int, list[httpx.Response]]:
        async with api.client() as client:
            # When many have read everything, and wait
            waiting = [
                asyncio.ensure_future(client.get("/v1/events", headers=WAIT)) for _ in range(FOLLOWERS)
            ]
            await joined(api, FOLLOWERS)
            threads, sessions = threading.active_count(), connections(record)
            # And something happens
            await asyncio.to_thread(numbered, api, 7)
            return threads, sessions, await asyncio.gather(*waiting)

    with api.looking_out():
        threads, sessions, answers = asyncio.run(calls())
    # Then the notification of its position has woken everybody: nothing was polled
    assert [sizes(answer) for answer in answers] == [[7]] * FOLLOWERS
    assert {answer.headers["preference-applied"] for answer in answers} == {"wait=60"}
    # And they took no more than the pool of threads that reads
    assert threads < FOLLOWERS / 2
    assert sessions < FOLLOWERS / 2


def test_whoever_waits_hears_only_of_the_types_asked_for(api: Api, record: Record) -> None:
    async def calls() -> httpx.Response:
        async with api.client() as client:
            call = client.get("/v1/events", headers=WAIT, params={"types": "exam.attempt.*"})
            waiting = asyncio.ensure_future(call)
            await joined(api, 1)
            await asyncio.to_thread(numbered, api, 7)
            await asyncio.to_thread(record.handle, c.received(c.create("A"), "create"))
            await asyncio.to_thread(number, api.engine)
            return await waiting

    with api.looking_out():
        page = asyncio.run(calls()).json()
    assert [event["type"] for event in page["events"]] == ["exam.attempt.created.v1"]


def test_a_wait_in_vain_says_how_far_it_looked(api: Api) -> None:
    numbered(api, 7)
    answer = api.get("/v1/events", {"Prefer": "wait=1"}, types="exam.attempt.*")
    assert answer.json() == {"events": [], "next": newest(api)}


def test_what_is_there_is_not_waited_for(api: Api) -> None:
    numbered(api, 7)
    assert sizes(api.get("/v1/events", WAIT)) == [7]


def test_who_waits_goes_on_when_the_process_stops(api: Api) -> None:
    async def calls() -> httpx.Response:
        async with api.client() as client:
            waiting = asyncio.ensure_future(client.get("/v1/events", headers=WAIT))
            await joined(api, 1)
            api.followers.close()
            return await waiting

    assert sizes(asyncio.run(calls())) == []


# --- many writers -------------------------------------------------------------------------------------------


def numbering(engine: Engine, stopping: threading.Event) -> None:
    """A relay that numbers what is committed."""
    while not stopping.is_set():
        number(engine)


def write(engine: Engine, writer: int, sessions: threading.Semaphore) -> None:
    """Commit events of one learner, one after the other."""
    for turn in range(EVENTS_OF_A_WRITER):
        with sessions, engine.begin() as connection:
            event_log.write(connection, [news(str(writer), turn)])


def test_a_cursor_misses_nothing_while_a_hundred_write(api: Api) -> None:
    heard: list[dict[str, Any]] = []
    sessions = threading.Semaphore(SESSIONS)
    numbered(api, 0)
    begin = newest(api)

    async def follow() -> None:
        after = begin
        async with api.client() as client:
            while len(heard) < WRITERS * EVENTS_OF_A_WRITER:
                answer = await client.get("/v1/events", params={"after": after, "limit": 7}, headers=WAIT)
                page = answer.json()
                heard.extend(page["events"])
                after = page["next"]

    # Given a listener that follows the log
    writers = [
        threading.Thread(target=write, args=(api.engine, writer, sessions)) for writer in range(WRITERS)
    ]
    with api.looking_out(), running(partial(numbering, api.engine)):
        # When many write at the same time
        for writer in writers:
            writer.start()
        asyncio.run(follow())
        for writer in writers:
            writer.join()
    # Then the listener has heard each event once, without a gap
    positions = [int(event["sequence"]) for event in heard]
    assert positions == list(range(begin + 1, begin + 1 + WRITERS * EVENTS_OF_A_WRITER))
    assert len({event["id"] for event in heard}) == len(heard)
    # And each learner's in their order
    for user_id in map(str, range(WRITERS)):
        turns = [event["data"]["size"] for event in heard if event["partitionkey"] == user_id]
        assert turns == list(range(EVENTS_OF_A_WRITER))
